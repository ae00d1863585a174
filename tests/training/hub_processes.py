"""A hub's training in one or two processes: `python hub_processes.py FOLDER DEVICES` writes the weights and losses."""

import sys
from pathlib import Path

import torch
from lightning import seed_everything
from lightning.pytorch.strategies import DDPStrategy

from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from tests.training.hubs import data, module
from tests.training.runs import trainer


def run(folder: Path, devices: int) -> None:
    """Two optimizer steps of four rows of each direction, which the processes divide between them."""
    seed_everything(5, verbose=False)
    output = folder / f"{devices}_processes"
    made = module(folder / "models", plain=True, fuser={"gate_noise": "none"})
    fit = trainer(
        output,
        2,
        [ExportFuser()],
        devices=devices,
        strategy="auto" if devices == 1 else DDPStrategy(process_group_backend="gloo"),
        accumulate_grad_batches=2 // devices,
        use_distributed_sampler=False,
    )
    rows = data(folder, batch_size=2)
    fit.fit(made, datamodule=rows)
    losses = fit.validate(made, datamodule=rows, verbose=False)
    if fit.is_global_zero:
        merged = {name: value for of_direction in losses for name, value in of_direction.items()}
        torch.save({"weights": made.model.fuser.state_dict(), "losses": merged}, output / "result.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
