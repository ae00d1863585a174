"""Fused models to and from disk: a fuser directory together with the language models that it names."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.errors import PairMismatchError
from c2c_lightning.export.description import FuserDescription, ModelReference, TrainingRecord
from c2c_lightning.export.format import load_fuser, save_fuser
from c2c_lightning.export.pair_check import check_models
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.remote_lm import RemoteLM

logger = logging.getLogger(__name__)

ModelLike = LMSpec | str | Path | FrozenLM | tuple[nn.Module, PreTrainedTokenizerBase]
"""A model by name, or one that is loaded already."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Pretrained:
    """The parts of a fused model.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        fuser: the fuser, in evaluation mode.
        training: how it was trained, where that was recorded.
    """

    receiver: FrozenLM
    sharers: tuple[FrozenLM, ...]
    fuser: Fuser
    training: TrainingRecord | None


def reference(model: FrozenLM) -> ModelReference:
    """What a fuser directory says of a loaded model."""
    spec = model.spec
    fingerprint = tokenizer_fingerprint(model.tokenizer)
    return ModelReference(
        spec.path, model.geometry, spec.revision, fingerprint, spec.template, spec.chat_template_kwargs
    )


def save_pretrained(
    directory: str | Path,
    fuser: Fuser,
    receiver: FrozenLM,
    sharers: Sequence[FrozenLM],
    training: TrainingRecord | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the fuser directory of a fused model; its language models are only named in it.

    Args:
        directory: where to.
        fuser: the fuser.
        receiver: the model that answers.
        sharers: the models that share their caches.
        training: how it was trained, for the card.
        overwrite: whether a fuser with other weights may be replaced.
    """
    references = tuple(reference(sharer) for sharer in sharers)
    description = FuserDescription(fuser.config, reference(receiver), references, training)
    return save_fuser(directory, fuser, description, overwrite)


def load_pretrained(
    path_or_hub_id: str | Path,
    receiver: ModelLike | None = None,
    sharers: ModelLike | Sequence[ModelLike] | None = None,
    revision: str | None = None,
    dtype: DType | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Pretrained:
    """A fuser with its language models.

    Args:
        path_or_hub_id: a fuser directory, or a fuser on the hub.
        receiver: the receiver, by name or loaded; default the one that the fuser names.
        sharers: likewise, one for each sharer.
        revision: hub revision of the fuser.
        dtype: type of the language models' weights, default as in their checkpoints. The fuser is float32.
        device: where everything is put.

    Raises:
        FuserFormatError: the fuser cannot be read.
        ModelLoadError: a language model cannot be loaded.
        PairMismatchError: the models are not those that the fuser was made for.
    """
    saved = load_fuser(path_or_hub_id, revision)
    wanted, given = saved.description, _as_list(sharers)
    if given is not None and len(given) != len(wanted.sharers):
        raise PairMismatchError(f"the fuser has {len(wanted.sharers)} sharers, but {len(given)} were given.")
    first = _load(receiver, wanted.receiver, dtype, device)
    choices = given if given is not None else [None] * len(wanted.sharers)
    asked = (receiver, wanted.receiver)
    others = tuple(
        # The receiver as its own sharer: the weights are loaded once.
        first
        if (choice, named) == asked and not part.reads_hidden
        else _load(choice, named, dtype, device, first.tokenizer)
        for choice, named, part in zip(choices, wanted.sharers, saved.fuser.sharers, strict=True)
    )
    for sharer, part in zip(others, saved.fuser.sharers, strict=True):
        if isinstance(sharer, RemoteLM):
            sharer.send_layers(part.read_layers)
    check_models(wanted, reference(first), [reference(sharer) for sharer in others])
    return Pretrained(first, others, saved.fuser.to(first.device), wanted.training)


def _as_list(sharers: ModelLike | Sequence[ModelLike] | None) -> Sequence[ModelLike] | None:
    """One sharer is as good as a list of one; a loaded model with its tokenizer is a tuple, too."""
    is_loaded = isinstance(sharers, tuple) and bool(sharers) and isinstance(sharers[0], nn.Module)
    if is_loaded or isinstance(sharers, LMSpec | str | Path | FrozenLM):
        return [cast(ModelLike, sharers)]
    return cast(Sequence[ModelLike] | None, sharers)


def _load(
    given: ModelLike | None,
    named: ModelReference,
    dtype: DType | torch.dtype | None,
    device: str | torch.device | None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> FrozenLM:
    """One language model: the given one, else the one that the fuser names."""
    if isinstance(given, FrozenLM):
        return given
    if isinstance(given, tuple):
        loaded = load_frozen(given)
        loaded.spec = _with_templates(loaded.spec, named)
        return loaded
    spec = given if isinstance(given, LMSpec) else LMSpec(named.name, named.revision)
    if isinstance(given, str | Path):
        spec = LMSpec.named(str(given), named.name, named.revision)
    if not spec.path:
        spec = replace(spec, path=named.name, revision=named.revision)
    spec = _with_templates(spec, named)
    if dtype is not None:
        spec = replace(spec, dtype=cast(DType, str(dtype).removeprefix("torch.")))
    return load_frozen(spec, None if device is None else str(device), tokenizer)


def _with_templates(spec: LMSpec, named: ModelReference) -> LMSpec:
    """The templates of the fuser's training where the spec sets none."""
    template = named.prompt_template if spec.prompt_template is None else spec.prompt_template
    kwargs = named.chat_template_kwargs if spec.chat_template_kwargs is None else spec.chat_template_kwargs
    return replace(spec, prompt_template=template, chat_template_kwargs=kwargs)
