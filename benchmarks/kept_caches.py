"""The training step with kept caches of the frozen models against the step that computes them, in one run.

    python -m benchmarks.kept_caches
    python -m benchmarks.kept_caches --config configs/fit/private_text.yaml --rows 64 --output kept.json

`lightning fit` over the same rows for several epochs: the first fills the caches, later ones use or compute them in
alternation. Processor time of each step, so that other work on the machine counts little; data loading is not part of
it. The default is the embedded pair with private notes. Options that are not named below go to `lightning fit`, such as
`--model.receiver.path DIR`.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from c2c_lightning.cli import main as lightning
from c2c_lightning.training._utils import model_of

EMBEDDED = ("configs/fit/quickstart.yaml", "configs/fit/quickstart_private_context.yaml")
FILLING, KEPT, COMPUTED = "filling", "kept", "computed"


class StepSeconds(Callback):
    """Takes the kept caches away in every other epoch after the first, and times each step.

    Args:
        path: JSON file with the seconds of all steps, by `filling`, `kept` and `computed`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._prefills: Any = None
        self._begin = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the kind of the epoch's steps."""
        model = model_of(pl_module)
        self._prefills = model.frozen_prefills or self._prefills
        model.frozen_prefills = None if kind_of(trainer.current_epoch) == COMPUTED else self._prefills

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Start the clock."""
        self._begin = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Keep the time."""
        self.seconds[kind_of(trainer.current_epoch)].append(time.process_time() - self._begin)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the times."""
        self.path.write_text(json.dumps(self.seconds) + "\n", encoding="utf-8")


def kind_of(epoch: int) -> str:
    """The kind of an epoch's steps.

    Example:
        >>> [kind_of(epoch) for epoch in range(4)]
        ['filling', 'kept', 'computed', 'kept']
    """
    return FILLING if not epoch else (KEPT, COMPUTED)[(epoch - 1) % 2]


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kept_caches", description=__doc__.splitlines()[0])
    parser.add_argument("--config", action="append", help="what is trained; default the embedded pair")
    parser.add_argument("--rows", type=int, default=128, help="training rows")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each kind")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    options, others = parser.parse_known_args(args)
    configs = [word for path in options.config or EMBEDDED for word in ("--config", path)]
    with tempfile.TemporaryDirectory(prefix="kept_caches.") as folder:
        times = Path(folder) / "seconds.json"
        lightning(["fit", *configs, *_run_options(Path(folder), times, options), *others])
        seconds = json.loads(times.read_text(encoding="utf-8"))
    medians = {kind: median(values) for kind, values in seconds.items()}
    numbers = {**medians, "ratio": medians[COMPUTED] / medians[KEPT], "steps": len(seconds[KEPT])}
    Console().print(
        f"Processor seconds of a step, medians: {medians[FILLING]:.3f} while caches are filled, {medians[KEPT]:.3f} "
        f"with kept caches, {medians[COMPUTED]:.3f} with computed ones: {numbers['ratio']:.2f} times."
    )
    if options.output is not None:
        options.output.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0


def _run_options(folder: Path, times: Path, options: argparse.Namespace) -> list[str]:
    callback = {"class_path": "benchmarks.kept_caches.StepSeconds", "init_args": {"path": str(times)}}
    given = {
        "model.cache_frozen": "memory",
        "data.max_rows": options.rows,
        "trainer.max_steps": -1,
        "trainer.max_epochs": 1 + 2 * options.rounds,
        "trainer.limit_val_batches": 0,
        "trainer.enable_checkpointing": "false",
        "trainer.default_root_dir": folder,
        "trainer.callbacks": json.dumps([callback]),
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


if __name__ == "__main__":
    raise SystemExit(main())
