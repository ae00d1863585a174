"""A picture of the run: loss curve and gates per layer."""

import logging
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from c2c_lightning.training._utils import fuser_model_of
from c2c_lightning.training.run_folder import FinalOutput, run_path

logger = logging.getLogger(__name__)

_LOSSES = {
    "val/loss": ("validation", "o-"),
    "val/loss_mismatched": ("validation, mismatched cache", "x:"),
    "val/loss_receiver": ("validation, receiver alone", "--"),
}


class RunPicture(FinalOutput):
    """Plots the losses of the run and the final gates into one PNG.

    Args:
        path: the file, default `training.png` in the run folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._train: list[tuple[int, Tensor]] = []
        self._validation: list[tuple[int, dict[str, float]]] = []

    def outputs(self, trainer: Trainer) -> list[Path]:
        """The picture."""
        return [run_path(trainer, self.path, "training.png")]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Keep the loss on its device; nothing waits for it."""
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            self._train.append((trainer.global_step, loss.detach().clone()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validation losses."""
        metrics = trainer.callback_metrics
        if not trainer.sanity_checking and "val/loss" in metrics:
            losses = {name: float(metrics[name]) for name in _LOSSES if name in metrics}
            self._validation.append((trainer.global_step, losses))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, from one process."""
        if not self.may_write(trainer):
            return
        logits = fuser_model_of(pl_module).fuser.gate_logits()  # in all processes: it may be sharded
        if not trainer.is_global_zero:
            return
        try:
            figure = self._figure(logits)
        except ImportError:
            logger.warning("no picture of the run: matplotlib is not installed (pip install 'c2c-lightning[plots]')")
            return
        (path,) = self.outputs(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        logger.info("picture of the run in %s", path)

    def _figure(self, logits: Tensor) -> Any:
        """Losses on the left; on the right the gate logits (sharers, 2, receiver layers)."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        curve, gates = figure.subplots(1, 2)
        curve.plot([s for s, _ in self._train], [float(v) for _, v in self._train], lw=0.8, label="training")
        for name, (words, style) in _LOSSES.items():
            points = [(step, losses[name]) for step, losses in self._validation if name in losses]
            if points:
                curve.plot(*zip(*points, strict=True), style, label=words)
        curve.set(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
        for number, sharer in enumerate(logits):
            for part, values in zip(("keys", "values"), sharer, strict=True):
                gates.plot(values.numpy(), "o-", markersize=4, label=f"sharer {number}, {part}")
        gates.axhline(0, color="grey", lw=0.8)
        gates.set(xlabel="receiver layer", ylabel="gate logit (open above 0)")
        gates.set_visible(len(logits) > 0)  # a baseline that trains the receiver has none
        for axes in (curve, gates) if len(logits) else (curve,):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
            # Below the axes, where it hides no curve.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
        return figure
