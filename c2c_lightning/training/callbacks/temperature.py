"""Annealing the gate temperature (paper, appendix A.3.5)."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.training._utils import fuser_model_of


def temperature_at(step: int, config: FuserConfig) -> float:
    """Gate temperature after `step` optimizer steps.

    `geometric` is the released code, `linear` the paper's text: at 26 % of the steps 0.17 and 0.74.
    """
    share = min(step / config.anneal_steps, 1.0)
    first, last = config.initial_temperature, config.final_temperature
    if config.temperature_schedule == "linear":
        return first + (last - first) * share
    return float(first * (last / first) ** share)


class AnnealTemperature(Callback):
    """Sets the temperature after each optimizer step; a function of the step alone, so that a resumed run agrees."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the temperature of the first, or resumed, step."""
        self._set(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Set the temperature of the next step, before checkpoints are written."""
        self._set(trainer, pl_module)

    @staticmethod
    def _set(trainer: Trainer, pl_module: LightningModule) -> None:
        fuser = fuser_model_of(pl_module).fuser
        fuser.set_temperature(temperature_at(trainer.global_step, fuser.config))
