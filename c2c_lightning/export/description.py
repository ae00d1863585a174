"""What `fuser_config.json` says: the fuser, the models that it belongs to, and how it was trained."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from jsonargparse import ArgumentError, ArgumentParser

from c2c_lightning.alignment.layer_alignment import LayerMap
from c2c_lightning.data.messages import PromptTemplate
from c2c_lightning.errors import C2CError, FuserFormatError, PairMismatchError
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import layer_maps
from c2c_lightning.kv.geometry import KVGeometry

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raised whenever an older version of this package could not read what is written."""


@dataclass(frozen=True)
class ModelReference:
    """A language model that a fuser belongs to.

    Attributes:
        name: local directory, hub id or `embedded:NAME`.
        geometry: shapes of its KV-cache.
        revision: hub revision it was loaded from.
        tokenizer_fingerprint: digest of its tokenizer and chat template; None where it is not known.
        prompt_template: how it reads conversations, for a model without chat template.
    """

    name: str
    geometry: KVGeometry
    revision: str | None = None
    tokenizer_fingerprint: str | None = None
    prompt_template: PromptTemplate | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        template = None if self.prompt_template is None else asdict(self.prompt_template)
        return {
            "name": self.name,
            "revision": self.revision,
            "kv_geometry": self.geometry.to_json(),
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "prompt_template": template,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        template = raw["prompt_template"]
        return cls(
            raw["name"],
            KVGeometry.from_json(raw["kv_geometry"]),
            raw["revision"],
            raw["tokenizer_fingerprint"],
            None if template is None else PromptTemplate(**template),
        )


@dataclass(frozen=True)
class TrainingRecord:
    """How a fuser was trained, for its card.

    Attributes:
        data: data set, by hub id or file name.
        steps: optimizer steps.
        examples: examples seen.
        settings: what else decides the outcome (learning rate, batch size, seed, ...).
        results: measured figures by name, such as `val/loss`.
    """

    data: str | None = None
    steps: int | None = None
    examples: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FuserDescription:
    """Everything about a fuser but its weights.

    Attributes:
        config: the choices that made it.
        receiver: the model that answers.
        sharers: the models that share their caches, in the fuser's order.
        training: how it was trained, where that is known.
    """

    config: FuserConfig
    receiver: ModelReference
    sharers: tuple[ModelReference, ...]
    training: TrainingRecord | None = None

    @property
    def layer_maps(self) -> list[LayerMap]:
        """For each sharer the sharer layer that each receiver layer reads."""
        return layer_maps(self.receiver.geometry, [sharer.geometry for sharer in self.sharers], self.config)

    def to_json(self) -> dict[str, Any]:
        """As it stands in `fuser_config.json`."""
        pairs = zip(self.sharers, self.layer_maps, strict=True)
        return {
            "format_version": FORMAT_VERSION,
            "fuser": asdict(self.config),
            "receiver": self.receiver.to_json(),
            "sharers": [{**sharer.to_json(), "layer_map": layer_map} for sharer, layer_map in pairs],
            "training": None if self.training is None else asdict(self.training),
        }

    @classmethod
    def from_json(cls, raw: Any, where: str) -> Self:
        """The inverse of `to_json`.

        Args:
            raw: the parsed file.
            where: its name, for messages.

        Raises:
            FuserFormatError: a newer format, or something missing, unknown or of the wrong type.
        """
        _check_version(raw, where)
        try:
            recorded = [dict(sharer) for sharer in raw["sharers"]]
            maps = [sharer.pop("layer_map") for sharer in recorded]
            description = cls(
                parse_config(raw["fuser"]),
                ModelReference.from_json(raw["receiver"]),
                tuple(ModelReference.from_json(sharer) for sharer in recorded),
                None if raw["training"] is None else TrainingRecord(**raw["training"]),
            )
            computed = description.layer_maps
        except (KeyError, TypeError, ValueError, AttributeError, ArgumentError, C2CError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise FuserFormatError(
                f"{where} is not the description of a fuser: {cause}. Export or download the fuser again."
            ) from error
        if computed != maps:
            raise FuserFormatError(
                f"{where} records the layer maps {maps}, but its own settings give {computed}. The file was edited: "
                "set `fuser.layer_map` for another map (the weights were trained for the recorded one)."
            )
        return description


def parse_config(raw: dict[str, Any]) -> FuserConfig:
    """A fuser configuration from JSON; every value is checked against its type.

    Raises:
        jsonargparse.ArgumentError: an unknown name, or a value of the wrong type.
        FuserConfigError: an impossible value.
    """
    unknown = set(raw) - {known.name for known in fields(FuserConfig)}
    if unknown:
        raise ValueError(f"unknown fuser settings {sorted(unknown)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FuserConfig)
    values = parser.parse_object(raw).as_dict()
    return FuserConfig(**{**values, "complex": ComplexConfig(**values["complex"])})


def _check_version(raw: Any, where: str) -> None:
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise FuserFormatError(f"{where} has no format version, so it is no fuser of this package.")
    if version > FORMAT_VERSION:
        raise FuserFormatError(
            f"{where} has format version {version}, but this release reads versions up to {FORMAT_VERSION}. "
            "Upgrade: pip install --upgrade c2c-lightning"
        )


def check_models(description: FuserDescription, receiver: ModelReference, sharers: Sequence[ModelReference]) -> None:
    """Refuse models that the fuser was not made for.

    A tokenizer that differs is only warned of: templates and special tokens change between revisions of one model.

    Args:
        description: the fuser's.
        receiver: the receiver at hand.
        sharers: the sharers at hand, in order.

    Raises:
        PairMismatchError: another number of sharers, or a KV-cache of another shape.
    """
    if len(sharers) != len(description.sharers):
        names = ", ".join(sharer.name for sharer in description.sharers)
        raise PairMismatchError(
            f"the fuser has {len(description.sharers)} sharers ({names}), but {len(sharers)} were given. "
            "Give one model for each, in this order."
        )
    wanted = (description.receiver, *description.sharers)
    given = (receiver, *sharers)
    for number, (want, have) in enumerate(zip(wanted, given, strict=True)):
        role = "receiver" if number == 0 else "sharer" if len(sharers) == 1 else f"sharer {number - 1}"
        if want.geometry != have.geometry:
            raise PairMismatchError(_geometry_message(role, want, have, wanted, given))
        if None not in (want.tokenizer_fingerprint, have.tokenizer_fingerprint):
            _warn_tokenizer(role, want, have)


def _geometry_message(
    role: str,
    want: ModelReference,
    have: ModelReference,
    wanted: Sequence[ModelReference],
    given: Sequence[ModelReference],
) -> str:
    advice = f"Pass {want.name!r} as {role}, or train a fuser for this pair."
    if [model.geometry for model in given] == [model.geometry for model in reversed(wanted)]:
        advice = "Receiver and sharer seem to be swapped."
    return (
        f"the fuser was trained for the {role} {want.name} ({_shape(want.geometry)}), but {have.name} has "
        f"{_shape(have.geometry)}. {advice}"
    )


def _shape(geometry: KVGeometry) -> str:
    kinds = sorted({(layer.kv_heads, layer.key_dim) for layer in geometry.layers})
    return f"{geometry.num_layers} layers, " + " or ".join(f"{heads} KV heads of width {dim}" for heads, dim in kinds)


def _warn_tokenizer(role: str, want: ModelReference, have: ModelReference) -> None:
    if want.tokenizer_fingerprint != have.tokenizer_fingerprint:
        logger.warning(
            "the tokenizer or chat template of %s %s is not the one that the fuser was trained with (%s). "
            "Answers may be worse; pin the revision if they are.",
            role,
            have.name,
            want.name,
        )
