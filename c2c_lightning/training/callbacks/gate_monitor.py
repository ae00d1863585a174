"""Logging of the gates."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.training._utils import fuser_model_of, is_log_step


class GateMonitor(Callback):
    """Logs how many gates are open, their temperature, and each layer's logit."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The summary, as often as other values are logged: reading logits waits for the device."""
        if not is_log_step(trainer):
            return
        fuser = fuser_model_of(pl_module).fuser
        logits = fuser.gate_logits()
        gates = logits[~torch.isnan(logits)]
        if not len(gates):
            return
        temperature = next(keys.temperature for _, _, keys, _ in fuser.gates())
        pl_module.log("gate/open_fraction", (gates > 0).float().mean(), prog_bar=True)
        pl_module.log("gate/temperature", temperature.mean())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Each layer's logits, keys and values, to every logger; as a table to W&B."""
        if trainer.sanity_checking:
            return
        fuser = fuser_model_of(pl_module).fuser
        rows = gate_rows(fuser.gate_logits())  # in all processes: it may be sharded
        if not trainer.is_global_zero:
            return
        names = fuser.gate_names
        scalars = {f"gate/{names[n]}/layer_{layer:02d}/{part}": value for n, layer, part, value in rows}
        for logger in trainer.loggers:
            # The step under which Lightning logs this validation's losses.
            logger.log_metrics(scalars, step=max(trainer.global_step - 1, 0))
            if hasattr(logger, "log_table") and rows:
                columns = ["sharer", "layer", "part", "logit"]
                logger.log_table("gate/layers", columns=columns, data=[list(row) for row in rows])


def gate_rows(logits: torch.Tensor) -> list[tuple[int, int, str, float]]:
    """Gate logits as rows of sharer, receiver layer, `key` or `value`, and logit; layers without a gate are left out.

    Args:
        logits: (sharers, 2, receiver layers), as from `Fuser.gate_logits`.
    """
    return [
        (n, layer, part, float(logits[n, index, layer]))
        for n in range(logits.shape[0])
        for layer in range(logits.shape[2])
        for index, part in enumerate(("key", "value"))
        if not torch.isnan(logits[n, index, layer])
    ]
