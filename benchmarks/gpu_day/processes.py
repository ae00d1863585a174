"""DDP and FSDP2 on all devices (two processes on a CPU): they train what one process trains."""

import tempfile
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Journal, Result, Skipped
from benchmarks.gpu_day.lightning_runs import Seed, Weights, batches, module, near, trainer_settings
from c2c_lightning.training.sharding import FSDP2Strategy

STEPS = 3


def run(day: Day, journal: Journal) -> None:
    """Run both strategies; this process starts the others, which run the same checks."""
    count = torch.cuda.device_count() if day.is_cuda else 2
    for strategy in ("ddp", "fsdp2"):
        journal.check(f"{strategy} on {count} devices equals one process", partial(_several, day, count, strategy))


def _several(day: Day, count: int, strategy: str) -> Result:
    if count < 2:
        raise Skipped("this machine has one device")
    made = DDPStrategy(gradient_as_bucket_view=True) if strategy == "ddp" else FSDP2Strategy()
    ours = _fit(day, strategy=made, devices=count)
    theirs = _fit(day, accumulate_grad_batches=count, devices=1)
    if ours is None or theirs is None:  # not the first process
        return {}
    return {"devices": count, **near(ours, theirs)}


class EveryNth(L.LightningDataModule):
    """The same rows in each optimizer step, however many processes there are."""

    def __init__(self, made: Any, count: int) -> None:
        super().__init__()
        self.made, self.count = made, count

    def train_dataloader(self) -> Any:
        """Of all batches, every n-th one for n processes."""
        assert self.trainer is not None
        mine = batches(self.made, self.count)[self.trainer.global_rank :: self.trainer.world_size]
        return DataLoader(mine, batch_size=None)  # type: ignore[arg-type]


def _fit(day: Day, **settings: Any) -> Weights | None:
    """The weights, in the first process only. Noise is off: each process would draw its own."""
    made = module(dropout=0.0, gate_noise="none", gate_init=0.5)
    total = settings.get("accumulate_grad_batches", settings["devices"]) * STEPS
    with tempfile.TemporaryDirectory() as folder:
        common = {**trainer_settings(day), "max_steps": STEPS, "callbacks": [Seed()], "default_root_dir": folder}
        trainer = L.Trainer(**common, use_distributed_sampler=False, **settings)
        trainer.fit(made, datamodule=EveryNth(made, total))
    fuser = made.model.whole_fuser()
    if fuser is None or not trainer.is_global_zero:
        return None
    return {name: value.detach().cpu().clone() for name, value in fuser.state_dict().items()}
