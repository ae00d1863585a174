"""The loss of an optimizer step as a mean over all its supervised tokens."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed
from torch.optim import Optimizer

from c2c_lightning.data.joint_batch import StepBatch


class TokenAverage(Callback):
    """Divides the gradients of summed losses by the supervised tokens of the step, before they are clipped.

    The tokens are those of all accumulated batches and all processes. Lightning has divided each batch's loss by the
    number of accumulated batches, and DDP the gradients by the number of processes; both are undone, so that a short
    last window and unequal ranks count token by token.
    """

    def __init__(self) -> None:
        self._tokens = TokenCount()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the count: an earlier run may have ended in the middle of a step."""
        self._tokens = TokenCount()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        """Count the batch."""
        self._tokens.add(batch.num_supervised, trainer.world_size)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Scale the gradients."""
        scale = trainer.accumulate_grad_batches * trainer.world_size / self._tokens.take()
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)


class TokenCount:
    """Number of tokens of the batches since the last step, summed over the processes while they compute.

    A sum that starts when it is needed would be waited for; `Strategy.reduce` even makes the host wait for its GPU.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, distributed.Work | None]] = []

    def add(self, tokens: Tensor, processes: int = 1) -> None:
        """Count this process's batch; `tokens` is a scalar on its device. Every process calls this."""
        total = tokens.float()
        self._parts.append((total, distributed.all_reduce(total, async_op=True) if processes > 1 else None))

    def take(self) -> Tensor:
        """The sum, (); the count restarts at zero.

        Raises:
            RuntimeError: no batch was counted.
        """
        parts, self._parts = self._parts, []
        if not parts:
            raise RuntimeError("no batch was counted since the last optimizer step.")
        for _, work in parts:
            if work is not None:
                work.wait()  # on a GPU its stream waits, not the host
        first, *others = (total for total, _ in parts)
        return sum(others, first)
