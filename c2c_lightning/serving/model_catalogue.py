"""Loads the fusers of a server and names their models; language models that several fusers share are loaded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.errors import ConfigurationError, PromptError
from c2c_lightning.evaluation.load_models import DType, describe_fuser, load_fused
from c2c_lightning.export.description import ModelReference
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.registry import T2T
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.served_models import FusedServed, ServedModel, SingleServed
from c2c_lightning.serving.text_to_text_served import TextToTextServed


class UnknownModelError(PromptError):
    """A request for a model that the server does not have."""


class ModelCatalogue:
    """The served models by name.

    `receiver`, `sharer` and `t2t` belong to the first fuser; further receivers and sharers are numbered (`sharer:1`).
    A fused pair is `c2c`, or `c2c:NAME` where there are several fusers.

    Attributes:
        models: the served models, in the order of `/v1/models`.
        prefixes: fused prompts of earlier answers.
    """

    def __init__(self, fused: dict[str, C2CModel], prefixes: PrefixCache, message: T2T | None = None) -> None:
        """Take loaded models by the names of their fusers, and the choices of text-to-text."""
        self.prefixes, self.models = prefixes, dict[str, ServedModel]()
        receivers = list(dict.fromkeys(model.receiver for model in fused.values()))
        able = [sharer for model in fused.values() for sharer in model.sharers if sharer.can_generate]
        sharers = list(dict.fromkeys(able))
        first = [self._add_single("receiver", n, lm, 0) for n, lm in enumerate(receivers)]
        others = [self._add_single("sharer", n, lm, _number_of(lm, fused)) for n, lm in enumerate(sharers)]
        for n, (receiver, sharer) in enumerate(self._pairs(fused)):
            name = _numbered("t2t", n)
            alone = first[receivers.index(receiver)], others[sharers.index(sharer)]
            self.models[name] = TextToTextServed(name, *alone, message)
        for fuser, model in fused.items():
            name = "c2c" if len(fused) == 1 else f"c2c:{fuser}"
            self.models[name] = FusedServed(name, model, prefixes)

    def _add_single(self, kind: str, count: int, lm: FrozenLM, number: int) -> SingleServed:
        name = _numbered(kind, count)
        served = SingleServed(name, kind, lm, self.prefixes, number)
        self.models[name] = served
        return served

    @staticmethod
    def _pairs(fused: dict[str, C2CModel]) -> list[tuple[FrozenLM, FrozenLM]]:
        """Receiver and first sharer of each fuser, each pair once; not where the sharer is in another process."""
        pairs = [(model.receiver, model.sharers[0]) for model in fused.values()]
        return list(dict.fromkeys((receiver, sharer) for receiver, sharer in pairs if sharer.can_generate))

    def get(self, name: str) -> ServedModel:
        """A model by its name.

        Raises:
            UnknownModelError: names those that there are.
        """
        if name not in self.models:
            raise UnknownModelError(f"The model {name[:100]!r} does not exist. Known models: {', '.join(self.models)}.")
        return self.models[name]


def _numbered(kind: str, count: int) -> str:
    return f"{kind}:{count}" if count else kind


def _number_of(sharer: FrozenLM, fused: dict[str, C2CModel]) -> int:
    """The number of a sharer in the first fuser that has it."""
    return next(model.sharers.index(sharer) for model in fused.values() if sharer in model.sharers)


def load_fusers(
    fusers: Sequence[str],
    receiver: str | None = None,
    sharers: Sequence[str] | None = None,
    dtype: DType | None = None,
    device: str | None = None,
) -> dict[str, C2CModel]:
    """Load fusers (directories, hub ids or checkpoints) by name; each language model once.

    Args:
        fusers: where the fusers are, `NAME=FUSER` to name one.
        receiver: another copy of the receiver, for all fusers.
        sharers: other copies of the sharers, for all fusers.
        dtype: type of the language models' weights.
        device: where everything is put.

    Raises:
        ConfigurationError: two fusers have one name.
        C2CError: a fuser or a model cannot be loaded.
    """
    known: dict[Any, FrozenLM] = {}
    named = [named_fuser(given) for given in fusers]
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"Two fusers have the name {name!r}. Name them: `--fuser NAME=DIR`.")
    return {name: _load_one(path, receiver, sharers, dtype, device, known) for name, path in named}


def _load_one(
    path: str, receiver: str | None, sharers: Sequence[str] | None, dtype: DType | None, device: str | None,
    known: dict[Any, FrozenLM],
) -> C2CModel:  # fmt: skip
    description = describe_fuser(path)
    references = [description.receiver, *description.sharers]
    theirs: Sequence[str | None] = sharers or [None] * len(description.sharers)
    given = [receiver, *theirs]
    keys = [(choice or ref.name, _settings(ref)) for choice, ref in zip(given, references, strict=False)]
    choices: list[Any] = [
        known.get(key) or _spec(choice, ref) for key, choice, ref in zip(keys, given, references, strict=False)
    ]
    model = load_fused(path, choices[0], choices[1:], dtype, device)
    known.update(zip(keys, (model.receiver, *model.sharers), strict=True))
    return model


def _spec(choice: str | None, reference: ModelReference) -> LMSpec:
    # What a fuser directory names is never an address: only the user's choice may be one.
    own = LMSpec(reference.name, reference.revision)
    return LMSpec.named(choice, own.path, own.revision) if choice else own


def _settings(reference: ModelReference) -> str:
    """What else makes two language models of one name differ."""
    return repr((reference.revision, reference.prompt_template, reference.chat_template_kwargs))


def named_fuser(given: str) -> tuple[str, str]:
    """Name and place of a fuser.

    Example:
        >>> named_fuser("runs/quickstart/fuser"), named_fuser("small=runs/small/fuser")
        (('quickstart', 'runs/quickstart/fuser'), ('small', 'runs/small/fuser'))
    """
    name, equals, path = given.partition("=")
    if equals and "/" not in name:
        return name, path
    parts = [part for part in Path(given).parts if part not in ("/", "..", ".", "fuser", "checkpoints")]
    return (parts[-1].removesuffix(".ckpt") if parts else "fuser"), given
