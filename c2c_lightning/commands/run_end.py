"""Ends of a run other than success: a part that cannot be constructed, a refusal by Lightning, a signal."""

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from c2c_lightning.errors import C2CError, ConfigurationError, MissingExtraError, problem_origin
from c2c_lightning.training.callbacks.stop_on_signal import RunStopped

# Packages that loggers need, and the extra of this package that brings them.
EXTRAS = {"wandb": "wandb", "tensorboard": "tensorboard"}


def construction_error(problem: Exception) -> C2CError | None:
    """The error of the user behind a part that cannot be constructed; None for an error of this package.

    jsonargparse wraps what a constructor raises into a ValueError, sometimes twice.
    """
    for package, extra in EXTRAS.items():
        if f"Requirement '{package}" in str(problem) or f"No module named '{package}" in str(problem):
            return MissingExtraError(f"{package} is not installed: pip install 'c2c-lightning[{extra}]'")
    inner: BaseException = problem
    while not isinstance(inner, C2CError) and (inner.__cause__ or inner.__context__) is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    if isinstance(inner, C2CError):
        return inner
    return ConfigurationError(str(inner)) if isinstance(inner, ValueError) else None


def is_refused_by_lightning(problem: BaseException) -> bool:
    """Whether Lightning itself raised an exception, which it does for configurations that it refuses."""
    return problem_origin(problem).startswith("lightning.")


def stop_message(stop: RunStopped, args: Sequence[str], patience: float) -> str:
    """The checkpoint of a stopped run, and the command that resumes it.

    Args:
        stop: what stopped it.
        args: its command line; empty for a run that does not train.
        patience: seconds from the signal to the end.
    """
    name = signal.Signals(stop.signum).name
    if not args:
        return f"Stopped by {name}."
    command = resume_command(args, stop.checkpoint or "last")
    if stop.checkpoint is not None:
        return f"Stopped by {name}. Checkpoint: {stop.checkpoint}\nResume with:\n{command}"
    return (
        f"Stopped by {name} without a new checkpoint: training had not begun, or no optimizer step ended within "
        f"{patience:g} seconds. Resume from the newest checkpoint, if there is one, with:\n{command}"
    )


def resume_command(args: Sequence[str], checkpoint: Path | str) -> str:
    """The command line with another `--ckpt_path`."""
    kept = [word for word in args if not word.startswith("--ckpt_path=")]
    while "--ckpt_path" in kept:
        place = kept.index("--ckpt_path")
        del kept[place : place + 2]
    return shlex.join(["lightning", *kept, "--ckpt_path", str(checkpoint)])
