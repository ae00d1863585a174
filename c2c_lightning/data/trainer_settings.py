"""Checks of a trainer's settings against the data."""

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn

from c2c_lightning.errors import ConfigurationError, DataError


def check_stream_ends(trainer: Trainer) -> None:
    """Refuse a training on a stream that nothing ends, and warn if there is no validation."""
    # Lightning turns `max_time` into this callback.
    has_timer = any(isinstance(callback, Timer) for callback in getattr(trainer, "callbacks", []))
    if trainer.max_steps == -1 and not has_timer and trainer.limit_train_batches == 1.0:
        raise DataError("A stream has no end, so the trainer needs one: set `trainer.max_steps`.")
    if trainer.val_check_interval == 1.0 and trainer.limit_train_batches == 1.0 and trainer.limit_val_batches:
        rank_zero_warn("A stream has no epochs: set `trainer.val_check_interval` to a number of batches to validate.")


def check_validation_interval(trainer: Trainer, batches: int | float) -> None:
    """Refuse an interval between validations that is longer than an epoch of so many batches: there would be none."""
    if trainer.check_val_every_n_epoch is None or not trainer.limit_val_batches:
        return
    interval, limit = trainer.val_check_interval, trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else batches * limit
    if isinstance(interval, int) and interval > batches:
        raise ConfigurationError(
            f"`trainer.val_check_interval` is {interval} batches, but an epoch of this run has {batches:.0f}, so "
            "there would be no validation. Set `trainer.check_val_every_n_epoch: null` to count batches over all "
            "epochs, or a smaller interval (a float is a fraction of an epoch)."
        )
