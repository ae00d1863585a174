"""Errors that a user can mend, as one message: those of this package, of files, and known ones of other libraries."""

import errno
import re
from collections.abc import Iterator

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from c2c_lightning.errors import C2CError

DISK_FULL = "the disk is full. Free some space, or choose another folder"
FILE_ERRORS = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: "the disk quota is used up. Free some space, or choose another folder",
    errno.EACCES: "permission denied. Choose a folder that you may write to, or a file that you may read",
    errno.EPERM: "permission denied. Choose a folder that you may write to, or a file that you may read",
    errno.EROFS: "the file system is read-only. Choose another folder",
    errno.ENOENT: "there is no such file or folder. Correct the path",
    errno.EEXIST: "a file of that name exists where a folder is needed. Choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another folder",
    errno.EISDIR: "a folder of that name exists where a file is needed. Choose another name",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
    errno.ELOOP: "the symbolic links form a circle. Remove them",
    errno.EIO: "the device reports an input/output error. Choose another disk",
}

#: Class and message of errors of PyTorch and Lightning that a user causes, and what to do about each.
LIBRARY_ERRORS: list[tuple[type[Exception], str, str]] = [
    (ValueError, r"num_workers option should be non-negative", "Correct `data.num_workers`."),
    (ValueError, r"is not in bounds, numpy accepts", "Correct `seed_everything`."),
    (ValueError, r"^Invalid (learning rate|weight_decay|beta|epsilon|momentum)", "Correct it in `model.optimizer`."),
    (RuntimeError, r"does not support dense gradients", "Choose another optimizer with `model.optimizer`."),
    (OSError, r"^Checkpoint file not found", "Correct `--ckpt_path`; it names a local file."),
    (OSError, r"No space left on device", DISK_FULL),
    (RuntimeError, r"No space left on device|inline_container.*(unexpected pos|failed writing)", DISK_FULL),
    (torch.OutOfMemoryError, r"", "Lower `data.batch_size` or `data.max_tokens_per_batch`."),
]


def user_message(error: Exception) -> str | None:
    """What to tell the user about an error; None for an error that only a change of this package can mend."""
    for problem in _causes(error):
        message = _own(problem) or _of_file(problem) or _of_library(problem)
        if message is not None:
            return message
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was explicitly raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _own(problem: BaseException) -> str | None:
    return str(problem) if isinstance(problem, C2CError | MisconfigurationException | ArgumentError) else None


def _of_file(problem: BaseException) -> str | None:
    if not isinstance(problem, OSError) or problem.errno not in FILE_ERRORS:
        return None
    if problem.filename is None and problem.errno == errno.ENOENT:
        return None
    where = "a file cannot be used" if problem.filename is None else f"`{problem.filename}` cannot be used"
    return f"{where}: {FILE_ERRORS[problem.errno]}."


def _of_library(problem: BaseException) -> str | None:
    text = str(problem.args[0]) if isinstance(problem, KeyError) and problem.args else str(problem)
    for kind, pattern, advice in LIBRARY_ERRORS:
        if isinstance(problem, kind) and re.search(pattern, text):
            first_line = text.strip().partition("\n")[0].rstrip(".")
            return f"{first_line}. {advice}".strip()
    return None
