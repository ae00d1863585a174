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
        is_mixed: whether there are two weighted sources, and batches by a token budget; otherwise one, and four rows.
    """

    workers: int = 0
    devices: int = 1
    streaming: bool = False
    accumulate: int = 1
    is_mixed: bool = False

    def __str__(self) -> str:
        """Its name."""
        kind = ("mixed " if self.is_mixed else "") + ("stream" if self.streaming else "table")
        return f"{kind}, {self.workers} workers, {self.devices} processes, accumulation {self.accumulate}"

    def arguments(self, folder: Path, config: Path, steps: int, dying: Dying | None = None) -> list[str]:
        """The command line of a run.

        Args:
            folder: of the run.
            config: what is trained.
            steps: optimizer steps.
            dying: the checkpoint that is not finished, if any.
        """
        given = {**self._trainer(folder, steps), **self._data(folder), "model.fuser.anneal_steps": steps}
        if dying is not None:
            given["trainer.plugins"] = [part("benchmarks.watched_fit.DyingCheckpointIO", **dying._asdict())]
        options = [word for name, value in given.items() for word in (f"--{name}", written(value))]
        return ["fit", "--config", str(config), *options, "--ckpt_path", "last"]

    def _trainer(self, folder: Path, steps: int) -> dict[str, Any]:
        return {
            "trainer.callbacks": [
                part("benchmarks.watched_fit.Recorder", folder=f"{folder}"),
                part(
                    "c2c_lightning.training.checkpoint.Checkpoint",
                    dirpath=f"{folder}/checkpoints",
                    every_n_train_steps=3,
                    save_last=True,
                ),
                part("c2c_lightning.training.callbacks.export_fuser.ExportFuser", output_dir=f"{folder}/fuser"),
            ],
            "trainer.default_root_dir": f"{folder}",
            "trainer.logger": False,
            "trainer.enable_progress_bar": False,
            "trainer.max_steps": steps,
            "trainer.val_check_interval": 5,
            "trainer.accumulate_grad_batches": self.accumulate,
            "trainer.devices": self.devices,
            "trainer.strategy": "ddp" if self.devices > 1 else "auto",
        }

    def _data(self, folder: Path) -> dict[str, Any]:
        sources = [
            part("c2c_lightning.data.sources.Messages", path=f"embedded:facts/{name}", streaming=self.streaming)
            for name in ("train_chat", "private_context_train")
        ]
        mixture = part("c2c_lightning.data.sources.Mixture", sources=sources, weights=[2, 1])
        return {
            "data.train": mixture if self.is_mixed else sources[0],
            "data.batch_size": None if self.is_mixed else 4,
            "data.max_tokens_per_batch": 200 if self.is_mixed else None,
            "data.max_rows": 32,
            "data.max_validation_rows": 8,
            "data.stream_rows": 16,
            "data.num_workers": self.workers,
            "data.cache_dir": f"{folder}/cache",
        }


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    """A part of a configuration."""
    return {"class_path": class_path, "init_args": init_args}


def written(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


CASES = [
    *(
        Case(workers, devices, streaming, accumulate)
        for devices, streaming, workers, accumulate in product((1, 2), (False, True), (0, 2), (1, 2))
    ),
    Case(workers=2, is_mixed=True),
    Case(workers=2, devices=2, streaming=True, is_mixed=True),
]
"""Every combination, and two with everything else that decides which rows come when."""
