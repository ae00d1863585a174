"""When checkpoints are written, and `last`, the newest state of the newest run."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from c2c_lightning.training._utils import is_trial
from c2c_lightning.training.checkpoint_io import PARTIAL, AtomicCheckpointIO, undamaged_checkpoints
from c2c_lightning.training.lightning_internals import is_between_steps, is_last_batch, validation_is_due
from c2c_lightning.training.run_folder import run_path

__all__ = ["AtomicCheckpointIO", "Checkpoint"]


class Checkpoint(ModelCheckpoint):
    """`ModelCheckpoint` with a `last` that is the newest state, and with states that can be resumed exactly.

    Takes the arguments of `ModelCheckpoint`; `dirpath` is by default `checkpoints` in the run folder. Differences:

    - With `save_last`, `last.ckpt` is written whenever a checkpoint is due and at the end of training, whether the
      monitored metric has improved or not. There is no `last-v1.ckpt`: `RunFolder` keeps runs apart.
    - A checkpoint that is due together with a validation is written after it: no resume skips that validation.
    - Nothing is written between accumulated batches, whose gradients no checkpoint holds.

    Keep at least two checkpoints (`save_top_k`), so that one remains if the newest is damaged.
    """

    _last_step_of_last = 0

    def outputs(self, trainer: Trainer) -> list[Path]:
        """The checkpoints in the folder."""
        return sorted(self._folder(trainer).glob(f"*{self.FILE_EXTENSION}"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder; names need no version, since the folder has one run only."""
        self._folder(trainer)
        self._enable_version_counter = False
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if due; if a validation follows, after it."""
        if validation_is_due(trainer):
            is_due = self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
            if is_due and not is_between_steps(trainer):
                self._defer_save_until_validation = True
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._update_last(trainer, is_due=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best states, and the newest one."""
        # Lightning would keep a deferred save only where validations and epochs end at different times.
        if self._defer_save_until_validation and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
            self._defer_save_until_validation = False
        super().on_validation_end(trainer, pl_module)
        is_due = not self._should_save_on_train_epoch_end(trainer) and self._is_due_per_epoch(trainer)
        self._update_last(trainer, is_due)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best states, and the newest one."""
        super().on_train_epoch_end(trainer, pl_module)
        is_due = self._should_save_on_train_epoch_end(trainer) and self._is_due_per_epoch(trainer)
        self._update_last(trainer, is_due)

    def write_last(self, trainer: Trainer) -> Path:
        """Write `last` now, independent of the configuration.

        Returns:
            The file.
        """
        path = Path(self.format_checkpoint_name(self._monitor_candidates(trainer), self.CHECKPOINT_NAME_LAST))
        self.last_model_path = str(path)
        trainer.save_checkpoint(path, weights_only=False)
        return path

    def _is_due_per_epoch(self, trainer: Trainer) -> bool:
        return self._every_n_epochs > 0 and (trainer.current_epoch + 1) % self._every_n_epochs == 0

    def _update_last(self, trainer: Trainer, is_due: bool) -> None:
        """Write `last` if it is due or training ends, and not of this step already."""
        if not (is_due or _is_end(trainer)) or not self.save_last or self._last_step_of_last == trainer.global_step:
            return
        if is_trial(trainer) or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if not is_between_steps(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Link `last` to a checkpoint of this step if there is one and links are wanted, else write it."""
        if not self.save_last:
            return
        path = self.format_checkpoint_name(monitor_candidates, self.CHECKPOINT_NAME_LAST)
        previous, self.last_model_path = self.last_model_path, path
        # A closed-form fit ends at step 0, of which no checkpoint exists.
        is_saved = self._last_checkpoint_saved and self._last_global_step_saved == trainer.global_step
        if self.save_last == "link" and is_saved:
            self._link_checkpoint(trainer, self._last_checkpoint_saved, path)
        else:
            # Not `_save_checkpoint`: the step would count as saved, and its validation could not become the best.
            trainer.save_checkpoint(path, self.save_weights_only)
            self._last_checkpoint_saved = self._last_checkpoint_saved or path
        self._last_step_of_last = trainer.global_step
        if previous and self._should_remove_checkpoint(trainer, previous, path):
            self._remove_checkpoint(trainer, previous)

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        if super()._should_skip_saving_checkpoint(trainer):
            return True
        is_between = is_between_steps(trainer)
        if is_between and trainer.validating:
            rank_zero_warn(
                "No checkpoint after this validation: it ran between accumulated batches. Let `val_check_interval` be "
                "a multiple of `accumulate_grad_batches`."
            )
        return is_between

    def _folder(self, trainer: Trainer) -> Path:
        if self.dirpath is None:
            self.dirpath = os.path.realpath(run_path(trainer, None, "checkpoints"))
        return Path(self.dirpath)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Candidates of `ckpt_path="last"`: the newest undamaged checkpoint, else Lightning's choice."""
        newest = next(undamaged_checkpoints(self._folder(trainer)), None)
        if newest is not None:
            return {str(newest)}
        found: set[str] = super()._find_last_checkpoints(trainer)
        return {path for path in found if Path(path).exists()}

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        """Replace the link in one step; Lightning removes it first, and a kill in between loses it."""
        if trainer.is_global_zero and os.path.abspath(filepath) != os.path.abspath(linkpath):
            fresh = Path(f"{linkpath}{PARTIAL}")
            fresh.unlink(missing_ok=True)
            try:
                fresh.symlink_to(os.path.relpath(filepath, os.path.dirname(linkpath)))
                fresh.replace(linkpath)
            except OSError:  # the file system has no links
                ModelCheckpoint._link_checkpoint(trainer, filepath, linkpath)
                return
        trainer.strategy.barrier()


def _is_end(trainer: Trainer) -> bool:
    """Whether training ends with this step, as far as is known during its batch or validation."""
    is_last_step = 0 < trainer.max_steps <= trainer.global_step
    is_last_epoch = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1
    return trainer.should_stop or is_last_step or (is_last_epoch and is_last_batch(trainer))
