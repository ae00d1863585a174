"""A training run that writes down all it does, and may die while it writes a checkpoint."""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.training._utils import model_of
from c2c_lightning.training.checkpoint import AtomicCheckpointIO

BEGAN = "began"
"""The file that says that a run has begun, in its folder."""


class Recorder(Callback):
    """Writes a line for each batch and each validation, with every number to the last bit.

    A resumed run appends, so that what it does again is there twice.

    Args:
        folder: `records-RANK.jsonl` goes there.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Say that the run has begun."""
        (self.folder / BEGAN).touch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """What was trained on, what came of it, and everything that the next batch depends on."""
        loop = trainer.fit_loop.epoch_loop
        gates = [gate for _, _, *pair in model_of(pl_module).fuser.gates() for gate in pair]
        self._write(
            trainer,
            {
                "done": f"batch {loop.batch_progress.total.ready}",
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "logger_step": loop._batches_that_stepped,
                "rows": [row[row > 0].tolist() for row in batch.response_ids],
                "batch": _digest(*_tensors(batch)),
                "loss": _bits(outputs["loss"]),
                "rates": [_bits(group["lr"]) for group in trainer.optimizers[0].param_groups],
                "temperatures": sorted({_bits(value) for gate in gates for value in gate.temperature}),
                "random": _digest(torch.get_rng_state()),
            },
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The losses of a validation."""
        if trainer.sanity_checking:
            return
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        losses = {name: _bits(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self._write(trainer, {"done": f"validation after batch {batches}", **losses})

    def _write(self, trainer: L.Trainer, record: dict[str, Any]) -> None:
        # The line break comes first: after a line that a kill has cut short, the next one starts on a line of its own.
        with (self.folder / f"records-{trainer.global_rank}.jsonl").open("a") as file:
            file.write("\n" + json.dumps(record))


class DyingCheckpointIO(AtomicCheckpointIO):
    """Kills its process in the middle of writing a checkpoint.

    Args:
        number: which checkpoint of this process it is, from 1.
        share: how much of the file is written; more than 1 is all of it, and the name that it gets in the end.
    """

    def __init__(self, number: int, share: float) -> None:
        self.number, self.share = number, share

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, or a part of it."""
        self.number -= 1
        if self.number == 0 and self.share <= 1:
            torch.save = self._cut_short
        super().save_checkpoint(checkpoint, path, storage_options)
        if self.number == 0:
            _die()

    def _cut_short(self, content: Any, file: Any, _save: Any = torch.save) -> None:
        _save(content, file)
        file.truncate(int(self.share * file.tell()))
        _die()


def read_records(folder: Path, rank: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What a process of a run has done.

    Args:
        folder: of the run.
        rank: which process.

    Returns:
        Records by what was done, and what was done again in another way.
    """
    path = folder / f"records-{rank}.jsonl"
    records: dict[str, dict[str, Any]] = {}
    differing: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # blank, or cut short by a kill
            continue
        if records.setdefault(record["done"], record) != record:
            differing.append(f"{record['done']} of process {rank}, done again")
    return records, differing


def _tensors(batch: TrainingBatch) -> list[torch.Tensor]:
    prompt = batch.prompt
    sharers = [tensor for sharer in prompt.sharers for tensor in (sharer.input_ids, sharer.mask, sharer.index)]
    return [prompt.receiver.input_ids, prompt.receiver.mask, *sharers, batch.response_ids, batch.response_mask]


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


def _bits(value: Any) -> str:
    return float(value).hex()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
