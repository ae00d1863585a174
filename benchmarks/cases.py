"""Ways to train a small fuser, as command lines of `lightning fit`."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple


class Dying(NamedTuple):
    """A checkpoint in whose writing a run dies, see `DyingCheckpointIO`."""

    number: int
    share: float


@dataclass(frozen=True)
class Case:
    """A way to train.

    Attributes:
        workers: processes of each data loader.
        devices: processes that train.
        streaming: whether rows are read as they are needed.
        accumulate: batches per optimizer step.
        options: more options of `lightning fit`.
    """

    workers: int = 0
    devices: int = 1
    streaming: bool = False
    accumulate: int = 1
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Its name."""
        kind = "stream" if self.streaming else "table"
        extra = f", {' '.join(self.options)}" if self.options else ""
        return f"{kind}, {self.workers} workers, {self.devices} processes, accumulation {self.accumulate}{extra}"

    def arguments(self, folder: Path, config: Path, steps: int, dying: Dying | None) -> list[str]:
        """The command line of a run.

        Args:
            folder: of the run.
            config: what is trained.
            steps: optimizer steps.
            dying: the checkpoint that is not finished, if any.
        """
        checkpoint = {"dirpath": f"{folder}/checkpoints", "every_n_train_steps": 3, "save_last": True}
        callbacks = [
            {"class_path": "benchmarks.watched_fit.Recorder", "init_args": {"folder": str(folder)}},
            {"class_path": "c2c_lightning.training.checkpoint.Checkpoint", "init_args": checkpoint},
            {
                "class_path": "c2c_lightning.training.callbacks.export.ExportFuser",
                "init_args": {"output_dir": f"{folder}/fuser"},
            },
        ]
        settings: dict[str, Any] = {
            "trainer.default_root_dir": folder,
            "trainer.callbacks": json.dumps(callbacks),
            "trainer.logger": "false",
            "trainer.enable_progress_bar": "false",
            "trainer.max_steps": steps,
            "trainer.val_check_interval": 5,
            "trainer.accumulate_grad_batches": self.accumulate,
            "trainer.devices": self.devices,
            "trainer.strategy": "ddp" if self.devices > 1 else "auto",
            "model.fuser.anneal_steps": steps,
            "data.batch_size": 4,
            "data.max_rows": 60,
            "data.max_validation_rows": 8,
            "data.stream_rows": 16,
            "data.num_workers": self.workers,
            "data.cache_dir": folder / "cache",
            "data.train.init_args.streaming": str(self.streaming).lower(),
        }
        if dying is not None:
            plugin = {"class_path": "benchmarks.watched_fit.DyingCheckpointIO", "init_args": dying._asdict()}
            settings["trainer.plugins"] = json.dumps([plugin])
        given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return ["fit", "--config", str(config), *given, *self.options, "--ckpt_path", "last"]


CASES = [
    Case(workers, devices, streaming, accumulate)
    for devices, streaming, workers, accumulate in product((1, 2), (False, True), (0, 2), (1, 2))
]
