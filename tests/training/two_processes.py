"""Training runs in two processes: `python two_processes.py '[{"name": "ddp", ...}, ...]'` writes what came of them.

The same code makes the runs in one process that they are compared with.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.checkpoint import AtomicCheckpointIO
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.sharding import FSDP2Strategy
from tests.training.runs import Losses, module, trainer

SIZES = [1, 4, 2, 3]
"""Rows in the four batches of each step."""

# As in the overlays of `configs/trainer`.
STRATEGIES: dict[str, Callable[[], Any]] = {
    "auto": lambda: "auto",
    "ddp": lambda: DDPStrategy(gradient_as_bucket_view=True),
    "fsdp2": FSDP2Strategy,
}


class Shared(LightningDataModule):
    """The same rows in the same optimizer steps, in as many processes as there are.

    Args:
        count: number of steps.
        unfused: in the last batch of each step nothing is fused.
    """

    def __init__(self, count: int, unfused: bool) -> None:
        super().__init__()
        self.count, self.unfused = count, unfused

    def train_dataloader(self) -> DataLoader[Any]:
        """Of each step's batches, every n-th one for n processes."""
        return self._mine([self._batch(step, place) for step in range(self.count) for place in range(len(SIZES))])

    def val_dataloader(self) -> DataLoader[Any]:
        """Every n-th of two batches."""
        return self._mine([self._batch(100, 3), self._batch(100, 0)])

    def _mine(self, batches: list[TrainingBatch]) -> DataLoader[Any]:
        assert self.trainer is not None
        mine: Any = batches[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(mine, batch_size=None)

    def _batch(self, step: int, place: int) -> TrainingBatch:
        assert self.trainer is not None
        rows = range(step * 17 + place * 5, step * 17 + place * 5 + SIZES[place])
        made = conversations(self.trainer.lightning_module, rows)
        if not self.unfused or place != len(SIZES) - 1:
            return made
        return TrainingBatch(made.prompt.with_share(0.0, "former"), made.response_ids, made.response_mask)


def conversations(trained: Any, rows: range) -> TrainingBatch:
    """A batch of one to three turns each, of very different lengths: with `span` it has one to three spans."""
    examples = []
    for row in rows:
        turns = [
            {"role": role, "content": f"{role} {row} {'river ' * ((row + turn) % 5)}"}
            for turn in range(rows.start % 3)
            for role in ("user", "assistant")
        ]
        question = {"role": "user", "content": f"What is {'very ' * (row % 4)}{row}?"}
        answer = {"role": "assistant", "content": f"{row}" + " answer" * (row * 7 % 11)}
        examples.append(trained.encoder.encode_example([*turns, question, answer]))
    return collate_examples(examples, 0, [0])


def run(
    models: str,
    folder: str,
    name: str,
    count: int,
    strategy: str = "auto",
    devices: int = 1,
    unfused: bool = False,
    epoch: int | None = None,
    resume: str | None = None,
    plain: bool = True,
    settings: dict[str, Any] | None = None,
    **choices: Any,
) -> C2CModule:
    """Train, and write a checkpoint, a fuser directory, and weights and validation into `folder`/`name`.

    The weights of each process are written too, where the fuser is not sharded.

    Args:
        models: folder of the models.
        folder: where to write.
        name: of the run.
        count: optimizer steps.
        strategy: `auto`, `ddp` or `fsdp2`.
        devices: processes.
        unfused: whether there are batches in which nothing is fused.
        epoch: steps in an epoch, default all.
        resume: a checkpoint to go on from.
        plain: gradients are steps; otherwise AdamW.
        settings: of the module.
        choices: of the fuser.
    """
    seed_everything(5, verbose=False)
    chosen = {"gate_noise": "none", "token_alignment": "span", "lr": 0.1 if plain else 0.01, **choices}
    made, output, losses = module(Path(models), plain=plain, settings=settings, **chosen), Path(folder) / name, Losses()
    fit = trainer(
        output,
        count,
        [ExportFuser(str(output / "fuser")), losses],
        devices=devices,
        strategy=STRATEGIES[strategy](),
        accumulate_grad_batches=len(SIZES) // devices,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        plugins=[AtomicCheckpointIO()],
    )
    data = Shared(epoch or count, unfused)
    fit.fit(made, datamodule=data, ckpt_path=resume, weights_only=True)
    # Before the validation, which begins with the weights of the first process in all.
    own = made.model.whole_fuser()
    if own is not None:
        output.mkdir(parents=True, exist_ok=True)
        torch.save(own.state_dict(), output / f"process_{fit.global_rank}.pt")
    fit.save_checkpoint(output / "run.ckpt")
    validated = fit.validate(made, datamodule=data, verbose=False)[0]
    fuser = made.model.whole_fuser()
    if fit.is_global_zero and fuser is not None:
        torch.save({"weights": fuser.state_dict(), **validated}, output / "result.pt")
    return made


def main() -> None:
    """All runs, one after the other."""
    torch.set_num_threads(1)
    for settings in json.loads(sys.argv[1]):
        run(devices=2, **settings)


if __name__ == "__main__":
    main()
