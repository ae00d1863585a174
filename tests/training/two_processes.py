"""A training run in one or two processes: `python two_processes.py '{"devices": 2, ...}'` writes its weights."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, seed_everything
from torch.utils.data import DataLoader

from tests.training.runs import batch, module, trainer


class Shared(LightningDataModule):
    """The same rows in the same optimizer steps, in as many processes as there are."""

    def __init__(self, steps: list[list[list[int]]]) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Of each step's batches, every n-th one for n processes."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        mine: Any = [batch(self.trainer.lightning_module, rows) for step in self.steps for rows in step[rank::world]]
        return DataLoader(mine, batch_size=None)


def steps(count: int) -> list[list[list[int]]]:
    """Four batches of very unequal sizes for each step."""
    sizes = [1, 4, 2, 3]
    return [
        [[step * 17 + place * 5 + n for n in range(size)] for place, size in enumerate(sizes)] for step in range(count)
    ]


def main(models: str, output: str, devices: int, count: int, choices: dict[str, Any]) -> None:
    """Train and write the weights."""
    torch.set_num_threads(1)
    seed_everything(5, verbose=False)
    made = module(Path(models), **choices)
    run = trainer(
        Path(output).parent,
        count,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        accumulate_grad_batches=4 // devices,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )
    run.fit(made, datamodule=Shared(steps(count)))
    if run.is_global_zero:
        torch.save(made.state_dict(), output)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
