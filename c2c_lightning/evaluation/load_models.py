"""Loads the models of an evaluation: a fuser with its pair, or a pair without a fuser."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.export.description import FuserDescription, ModelReference
from c2c_lightning.export.format import find_directory, read_description
from c2c_lightning.export.from_checkpoint import export_checkpoint, fuser_of, load_checkpoint
from c2c_lightning.export.pair_check import check_models
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.meta_geometry import expected_geometry
from c2c_lightning.responders.responder_factory import ModelBundle

DType = Literal["auto", "float32", "bfloat16", "float16"]


def load_bundles(
    fusers: Sequence[str],
    receiver: LMSpec | None = None,
    sharers: Sequence[LMSpec] | None = None,
    dtype: DType | None = None,
    device: Any = None,
) -> list[ModelBundle]:
    """The models of `load_bundle`, one bundle for each fuser (seeds, checkpoints); language models are loaded once."""
    first = load_bundle(fusers[0] if fusers else None, receiver, sharers, dtype, device)
    models = [load_fused(fuser, first.receiver, list(first.sharers), device=device) for fuser in fusers[1:]]
    return [first, *(replace(first, c2c=model) for model in models)]


def check_fusers(
    fusers: Sequence[str], self_fuser: str | None, receiver: LMSpec | None, sharers: Sequence[LMSpec] | None
) -> None:
    """Check by their configurations that fusers and models fit, without loading weights.

    Raises:
        FuserFormatError, CheckpointError: an unreadable fuser.
        ModelLoadError: a model without configuration.
        PairMismatchError: a fuser of other models.
    """
    descriptions = [describe_fuser(fuser) for fuser in fusers]
    if not descriptions:
        return
    first = descriptions[0]
    answering = _reference(receiver, first.receiver)
    sharing = list(first.sharers)
    if sharers is not None:
        # More sharers than the fuser has are refused below, with their number in the message.
        known = [*first.sharers, *[first.receiver] * len(sharers)]
        sharing = [_reference(spec, named) for spec, named in zip(sharers, known, strict=False)]
    for description in descriptions:
        check_models(description, answering, sharing)
    if self_fuser is not None:
        check_models(describe_fuser(self_fuser), answering, [answering])


def describe_fuser(fuser: str) -> FuserDescription:
    """Description of a fuser directory, a fuser on the hub or a Lightning checkpoint."""
    if fuser.endswith(".ckpt"):
        return fuser_of(load_checkpoint(Path(fuser)), fuser)[1]
    return read_description(find_directory(fuser))


def _reference(spec: LMSpec | None, named: ModelReference) -> ModelReference:
    """The given model by its configuration; without one, the model that the fuser names."""
    if spec is None:
        return named
    return ModelReference(spec.path, expected_geometry(spec) or named.geometry)


def load_bundle(
    fuser: str | None,
    receiver: LMSpec | None = None,
    sharers: Sequence[LMSpec] | None = None,
    dtype: DType | None = None,
    device: Any = None,
) -> ModelBundle:
    """The models of a fuser directory, a fuser on the hub or a Lightning checkpoint, or a pair without a fuser.

    Receiver and sharers are by default those of the fuser's configuration, `dtype` that of their checkpoints.
    """
    if fuser is not None:
        model = load_fused(fuser, receiver, sharers, dtype, device)
        return ModelBundle(model.receiver, model.sharers, model)
    if receiver is None:
        raise BenchmarkError("No models configured: set `fuser`, or `receiver` (and `sharers`).")
    specs = [receiver, *(sharers or ())]
    # A model's own type precedes that of the run.
    specs = [spec if dtype is None or spec.dtype != "auto" else replace(spec, dtype=dtype) for spec in specs]
    models = [load_frozen(spec, None if device is None else str(device)) for spec in specs]
    return ModelBundle(models[0], tuple(models[1:]))


def load_fused(
    fuser: str, receiver: Any = None, sharers: Any = None, dtype: DType | None = None, device: Any = None
) -> C2CModel:
    """A fused model from a fuser directory, the hub or a Lightning checkpoint."""
    if not fuser.endswith(".ckpt"):
        return C2CModel.from_pretrained(fuser, receiver, sharers, dtype=dtype, device=device)
    # Through a fuser directory, so that a checkpoint passes the same checks.
    with tempfile.TemporaryDirectory() as folder:
        export_checkpoint(Path(fuser), Path(folder) / "fuser")
        return C2CModel.from_pretrained(Path(folder) / "fuser", receiver, sharers, dtype=dtype, device=device)


def fuser_fingerprint(fuser: str | None) -> str | None:
    """Hash of a fuser's files, so that a resumed evaluation never mixes two fusers; for hub ids the id."""
    if fuser is None:
        return None
    path = Path(fuser).expanduser()
    if not path.exists():
        return fuser
    digest = hashlib.sha256()
    # Not the model card, which may be edited at any time.
    files = [path] if path.is_file() else [*path.glob("*.json"), *path.glob("*.safetensors")]
    for file in sorted(files):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
