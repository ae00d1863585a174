"""A stop by a signal: SIGINT (Ctrl-C), SIGTERM, and Slurm's requeue signal."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.lightning_internals import (
    is_at_step_border,
    is_between_steps,
    requeue_environment,
)
from c2c_lightning.training.run_folder import run_path


class RunStopped(SystemExit):
    """A run was stopped by a signal; its exit code is 128 and the signal's number.

    Attributes:
        signum: the signal.
        checkpoint: where the run can resume, if anywhere.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.checkpoint: Path | None = None


class StopOnSignal(Callback):
    """Ends `fit` after the current optimizer step with a checkpoint that resumes exactly, and with `RunStopped`.

    A signal during a validation takes effect after the step that follows it. Outside training the run ends at once. A
    second Ctrl-C ends it without a checkpoint. All processes stop after the same step. Where the signal has ended the
    data loader workers too, a run of one process stops at once, during a validation as well, which is not repeated.

    Args:
        patience: seconds from the signal to the end of the step. After them the run ends without a new checkpoint.
            Choose less than the time that a scheduler waits before it kills.
    """

    def __init__(self, patience: float = 25.0) -> None:
        self.patience = patience
        self.stopped: RunStopped | None = None
        self._is_training, self._is_at_border = False, False
        self._is_over = False
        self._replaced: dict[int, Any] = {}
        self._requeue: Any = None
        self._pid = os.getpid()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Handle signals from the start: data is prepared, and workers are started, before training."""
        self._is_over, self.stopped = False, None
        self._install(signal.SIGINT, signal.SIGTERM)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the handlers of before."""
        self._uninstall()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Lightning's handlers, which act in the middle of a step."""
        self._install(signal.SIGINT, signal.SIGTERM)
        if environment := requeue_environment(trainer):
            number = environment.requeue_signal or signal.SIGUSR1
            self._requeue = (number, signal.getsignal(number))
            self._install(number)
        self._is_training = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once from here on."""
        self._is_training = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop at the end of an optimizer step."""
        if not is_between_steps(trainer):
            self._stop_if_requested(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the checkpoint where the state is that of a finished step, and requeue a Slurm job."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.stopped is not None and self._is_training and not isinstance(exception, KeyboardInterrupt):
            self._write_checkpoint(trainer, self.stopped)
        self._uninstall()

    def _write_checkpoint(self, trainer: Trainer, stop: RunStopped) -> None:
        # A data loader's worker that got the signal too may have ended the run between two steps.
        if self._is_at_border or (is_at_step_border(trainer) and trainer.world_size == 1):
            stop.checkpoint = write_last(trainer)
            if self._requeue is not None and stop.signum == self._requeue[0]:
                self._requeue[1](stop.signum, None)

    def _stop_if_requested(self, trainer: Trainer) -> None:
        number = self.stopped.signum if self.stopped else 0
        if trainer.world_size > 1:
            requested = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(requested, reduce_op="max"))
        if number:
            self.stopped = self.stopped or RunStopped(number)
            self._is_at_border = True
            raise self.stopped

    def _install(self, *numbers: int) -> None:
        if threading.current_thread() is threading.main_thread():  # others cannot
            for number in numbers:
                self._replaced.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._handle)

    def _uninstall(self) -> None:
        # Lightning restores ours later, when a run ends by an exception; then they pass the signal on.
        self._is_over, self._is_training = True, False
        for number, handler in self._replaced.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        is_child = os.getpid() != self._pid
        if is_child and signum == signal.SIGINT:  # Ctrl-C reaches data loader workers, which end with their parent
            return
        if is_child or self._is_over:
            signal.signal(signum, signal.SIG_DFL if is_child else self._replaced[signum])
            os.kill(os.getpid(), signum)
            return
        if self.stopped is not None:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.stopped = RunStopped(signum)
        if not self._is_training:
            raise self.stopped
        # torch raises for a worker that has ended, and does so within the step.
        self._replaced.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, self.patience)

    def _give_up(self, signum: int, frame: FrameType | None) -> None:
        if self.stopped is not None:
            raise self.stopped


def write_last(trainer: Trainer) -> Path:
    """Write `last.ckpt` now; all processes call this together."""
    for part in trainer.checkpoint_callbacks:
        if isinstance(part, Checkpoint):
            return part.write_last(trainer)
    path = run_path(trainer, None, "checkpoints") / "last.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    return path
