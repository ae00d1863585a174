"""Loading the models of an evaluation: a fuser with its pair, or a pair alone."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from c2c_lightning.baselines.factories import Team
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.export.checkpoint import export_checkpoint
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen import LMSpec, load_frozen

DType = Literal["auto", "float32", "bfloat16", "float16"]


def load_team(
    fuser: str | None,
    receiver: LMSpec | None = None,
    sharers: Sequence[LMSpec] | None = None,
    dtype: DType | None = None,
    device: Any = None,
) -> Team:
    """The models that answer.

    Args:
        fuser: fuser directory, fuser on the hub or Lightning checkpoint (.ckpt); None for a pair without a fuser.
        receiver: the receiver; default the one that the fuser names.
        sharers: likewise, one for each sharer.
        dtype: type of the language models' weights; default as in their checkpoints.
        device: where they are put.

    Raises:
        BenchmarkError: neither a fuser nor a receiver.
    """
    if fuser is not None:
        model = load_fused(fuser, receiver, sharers, dtype, device)
        return Team(model.receiver, model.sharers, model)
    if receiver is None:
        raise BenchmarkError("there is nobody to ask: give `fuser`, or `receiver` (and `sharers`).")
    place = None if device is None else str(device)
    models = [load_frozen(_typed(spec, dtype), place) for spec in (receiver, *(sharers or ()))]
    return Team(models[0], tuple(models[1:]))


def _typed(spec: LMSpec, dtype: DType | None) -> LMSpec:
    """The specification with the run's type, unless it has one of its own."""
    return spec if dtype is None or spec.dtype != "auto" else replace(spec, dtype=dtype)


def load_fused(
    fuser: str,
    receiver: Any = None,
    sharers: Any = None,
    dtype: DType | None = None,
    device: Any = None,
) -> C2CModel:
    """A fused model from a fuser directory, the hub or a Lightning checkpoint."""
    if not _is_checkpoint(fuser):
        return C2CModel.from_pretrained(fuser, receiver, sharers, dtype=dtype, device=device)
    with tempfile.TemporaryDirectory() as folder:
        export_checkpoint(Path(fuser), Path(folder) / "fuser")
        return C2CModel.from_pretrained(Path(folder) / "fuser", receiver, sharers, dtype=dtype, device=device)


def _is_checkpoint(fuser: str) -> bool:
    return fuser.endswith(".ckpt")


def fuser_fingerprint(fuser: str | None) -> str | None:
    """A key of a fuser's content, so that answers of an older one are not taken for its own; the name on the hub."""
    if fuser is None:
        return None
    path = Path(fuser).expanduser()
    if not path.exists():
        return fuser
    digest = hashlib.sha256()
    files = [path] if path.is_file() else [*path.glob("*.json"), *path.glob("*.safetensors")]
    for file in sorted(files):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
