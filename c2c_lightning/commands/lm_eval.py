"""`lightning lm-eval`: lm-evaluation-harness with the model `c2c`."""

from collections.abc import Sequence


def run_lm_eval(args: Sequence[str]) -> None:
    """Run the harness's own command line after registering `c2c`, which its released versions cannot find themselves.

    The arguments after `lm-eval` are the harness's, such as `--model c2c --model_args fuser=DIR --tasks TASK`.

    Raises:
        MissingExtraError: the harness is not installed.
    """
    from c2c_lightning.evaluation import lm_eval_model  # registers `c2c`

    lm_eval_model.main(args[1:])
