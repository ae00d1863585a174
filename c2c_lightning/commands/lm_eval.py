"""The command `lm_eval` with the model `c2c`.

lm-evaluation-harness looks for models in its own package only, so its command does not know ours. This one of the same
name is its own main with `c2c` registered first; pip puts it in the place of theirs, since we depend on them.
"""

import sys

from c2c_lightning.errors import MissingExtraError


def main() -> None:
    """Everything that `lm_eval` does, and `--model c2c --model_args fuser=DIR`."""
    try:
        from c2c_lightning.evaluation.lm_eval_model import main as run
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    run()
