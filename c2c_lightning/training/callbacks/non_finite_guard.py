"""Stops or skips at a non-finite loss or gradient, before it reaches the weights or, at the latest, a checkpoint."""

import logging
from collections import deque
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from c2c_lightning.data.joint_batch import StepBatch
from c2c_lightning.errors import NonFiniteError
from c2c_lightning.training._utils import is_log_step, trained_model

logger = logging.getLogger(__name__)

_ROWS, _CHARACTERS = 8, 80

Step = tuple[int, list[StepBatch], list[Tensor]]
"""Optimizer step, its batches on this process, and their losses."""


class NonFiniteGuard(Callback):
    """Checks the loss and the gradient norm of every optimizer step.

    On a CPU, and with `skip`, before the step. On other devices the result stays there and is read as often as values
    are logged, so that no step waits for it; `C2CModule` refuses to write a checkpoint with a non-finite weight.

    Args:
        action: `stop` raises `NonFiniteError`; `skip` leaves weights and optimizer as they are and counts the step.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        self.action = action
        self.skipped = 0
        self._batches: list[StepBatch] = []
        self._losses: list[Tensor] = []
        self._unread: deque[tuple[Step, Tensor]] = deque(maxlen=64)

    def state_dict(self) -> dict[str, Any]:
        """The number of skipped steps."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the count."""
        self.skipped = state_dict["skipped"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a run that ended in the middle of a step."""
        self._batches, self._losses = [], []
        self._unread.clear()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        """Keep the batch until its step is checked."""
        self._batches.append(batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss on its device."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check this step, or leave the result on the device."""
        step: Step = (trainer.global_step + 1, self._batches, self._losses)
        self._batches, self._losses = [], []
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # a float16 loss scale overflows by design, and its scaler skips the step
        is_finite = torch.isfinite(gradient_norm(pl_module))
        if is_finite.device.type != "cpu" and self.action == "stop":
            self._unread.append((step, is_finite))
        elif not bool(is_finite):
            self._act(pl_module, optimizer, step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Read the results of the last steps when values are logged."""
        if self._unread and is_log_step(trainer):
            is_finite = torch.stack([result for _, result in self._unread]).tolist()
            for (step, _), fine in zip(list(self._unread), is_finite, strict=True):
                if not fine:
                    raise NonFiniteError(message(pl_module, step))
            self._unread.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report skipped steps."""
        if self.skipped:
            logger.warning("%d optimizer steps with a non-finite gradient were skipped.", self.skipped)

    def _act(self, pl_module: LightningModule, optimizer: Optimizer, step: Step) -> None:
        if self.action == "stop":
            raise NonFiniteError(message(pl_module, step))
        self.skipped += 1
        logger.warning("Skipped (%d so far): %s", self.skipped, message(pl_module, step))
        optimizer.zero_grad(set_to_none=True)  # optimizers leave parameters without a gradient as they are


def gradient_norm(module: LightningModule) -> Tensor:
    """Norm of all gradients, over all processes where they are sharded, ()."""
    norm = get_total_norm([p.grad for p in trained_model(module).parameters() if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def message(module: LightningModule, step: Step) -> str:
    """Names a step with its loss and its rows."""
    number, batches, losses = step
    bad = [index for index, loss in enumerate(losses) if not bool(torch.isfinite(loss))]
    found = f"the loss is {float(losses[bad[0]])}" if bad else "the gradient is not finite"
    suspects = [batch for index, batch in enumerate(batches) if index in bad or not bad]
    texts = [text for batch in suspects for text in trained_model(module).prompt_texts(batch)]
    rows = [repr(" ".join(text.split())[:_CHARACTERS]) for text in texts]
    shown = "".join(f"\n  {text}" for text in rows[:_ROWS])
    more = f"\n  and {len(rows) - _ROWS} more" if len(rows) > _ROWS else ""
    return f"In optimizer step {number} {found}. Rows on this process:{shown}{more}"
