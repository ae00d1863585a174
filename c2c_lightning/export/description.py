"""The content of `fuser_config.json`: the fuser, the models that it belongs to, and how it was trained."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from c2c_lightning.alignment.layer_alignment import LayerMap
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import C2CError, FuserConfigError, FuserFormatError
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.fuser.config import FuserConfig, SharerKind
from c2c_lightning.fuser.config_checks import check_fields, check_names
from c2c_lightning.fuser.fuser import layer_maps
from c2c_lightning.fuser.kind import KINDS_VARIABLE, class_path, find_kind, kind_name
from c2c_lightning.kv.geometry import LATENT, KVGeometry

FORMAT_VERSION = 1
"""Raised whenever an older version of this package could not read what is written."""

MAX_LAYERS, MAX_WIDTH = 10_000, 2**20


@dataclass(frozen=True)
class ModelReference:
    """A language model that a fuser belongs to: a local directory, hub id or `embedded:NAME`.

    The fingerprint is a digest of its tokenizer and chat template, None where it is unknown. Template and template
    arguments are those of the training.
    """

    name: str
    geometry: KVGeometry
    revision: str | None = None
    tokenizer_fingerprint: str | None = None
    prompt_template: PromptTemplate | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Its entry in the file."""
        template = None if self.prompt_template is None else asdict(self.prompt_template)
        written: dict[str, Any] = {
            "name": self.name,
            "revision": self.revision,
            "kv_geometry": self.geometry.to_json(),
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "prompt_template": template,
        }
        if self.geometry.hidden_size is not None:
            written["hidden_size"] = self.geometry.hidden_size
        kwargs = self.chat_template_kwargs
        return written if kwargs is None else {**written, "chat_template_kwargs": kwargs}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        template = raw["prompt_template"]
        reference = cls(
            raw["name"],
            _geometry(raw["kv_geometry"], raw.get("hidden_size")),
            raw["revision"],
            raw["tokenizer_fingerprint"],
            None if template is None else PromptTemplate(**template),
            raw.get("chat_template_kwargs"),
        )
        for checked in (reference, *([reference.prompt_template] if reference.prompt_template else ())):
            check_fields(checked)
        if not reference.name:
            raise FuserConfigError("the name of a model is empty")
        return reference


def _geometry(raw: Any, hidden_size: Any) -> KVGeometry:
    """The shapes of a model's cache from JSON, where every number is possible."""
    is_list = isinstance(raw, list) and 0 < len(raw) <= MAX_LAYERS
    if not is_list or not all(_has_sizes(layer) for layer in raw):
        lists = f'[KV heads, key width, value width], each with "{LATENT}" added where it is latent'
        raise FuserConfigError(f"kv_geometry must be 1 to {MAX_LAYERS} lists {lists}")
    for size in (*(size for layer in raw for size in layer[:3]), *([] if hidden_size is None else [hidden_size])):
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_WIDTH:
            raise FuserConfigError(f"kv_geometry has the size {size!r}, but sizes are integers from 1 to {MAX_WIDTH}")
    return replace(KVGeometry.from_json(raw), hidden_size=hidden_size)


def _has_sizes(layer: Any) -> bool:
    return isinstance(layer, list) and len(layer) >= 3 and layer[3:] in ([], [LATENT])


@dataclass(frozen=True)
class TrainingRecord:
    """How a fuser was trained, for its card: data set by hub id or file name, optimizer steps, number of examples.

    `settings` are others that decide the outcome (learning rate, batch size, seed, ...); `results` are measured figures
    by name, such as `val/loss`.
    """

    data: str | None = None
    steps: int | None = None
    examples: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FuserDescription:
    """Everything about a fuser but its weights; sharers are in the fuser's order."""

    config: FuserConfig
    receiver: ModelReference
    sharers: tuple[ModelReference, ...]
    training: TrainingRecord | None = None

    @property
    def geometries(self) -> list[KVGeometry]:
        """Cache shapes of the sharers."""
        return [sharer.geometry for sharer in self.sharers]

    @property
    def layer_maps(self) -> list[LayerMap]:
        """For each sharer the sharer layer that each receiver layer is fused with."""
        return layer_maps(self.receiver.geometry, self.geometries, self.config)

    def to_json(self) -> dict[str, Any]:
        """The content of `fuser_config.json`."""
        pairs = zip(self.sharers, self.layer_maps, strict=True)
        kinds = {k for kind, own in self.config.kinds(len(self.sharers)) for k in kind.used_kinds(own)}
        paths = {kind_name(kind): class_path(kind) for kind in sorted(kinds, key=kind_name)}
        foreign = {name: path for name, path in paths.items() if not path.startswith("c2c_lightning.")}
        return {
            "format_version": FORMAT_VERSION,
            "fuser": config_to_json(self.config),
            **({"kind_classes": foreign} if foreign else {}),
            "receiver": self.receiver.to_json(),
            "sharers": [{**sharer.to_json(), "layer_map": layer_map} for sharer, layer_map in pairs],
            "training": None if self.training is None else asdict(self.training),
        }

    @classmethod
    def from_json(cls, raw: Any, where: str) -> Self:
        """The inverse of `to_json`; `where` is the name of the file, for messages."""
        check_version(raw, where)
        try:
            _check_kinds(raw.get("kind_classes") or {}, where)
            recorded = [dict(sharer) for sharer in raw["sharers"]]
            if not recorded:
                raise FuserConfigError("it has no sharers")
            maps = [sharer.pop("layer_map") for sharer in recorded]
            description = cls(
                parse_config(raw["fuser"]),
                ModelReference.from_json(raw["receiver"]),
                tuple(ModelReference.from_json(sharer) for sharer in recorded),
                None if raw["training"] is None else _training(raw["training"]),
            )
            computed = description.layer_maps
            description.config.kinds(len(recorded))
        except FuserFormatError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, C2CError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise FuserFormatError(
                f"{where} is not the description of a fuser: {cause}. Export or download the fuser again."
            ) from error
        # Recorded so that an edited setting, or another computation in a later version, is noticed.
        if computed != maps:
            raise FuserFormatError(
                f"{where} records the layer maps {maps}, but its settings give {computed}. The file was edited: "
                "set `fuser.layer_map` for another map (the weights were trained for the recorded one)."
            )
        return description


def _training(raw: dict[str, Any]) -> TrainingRecord:
    record = TrainingRecord(**raw)
    check_fields(record)
    return record


def config_to_json(config: FuserConfig) -> dict[str, Any]:
    """A fuser configuration as plain values; settings that earlier versions do not know only where they are used."""
    values, defaults = asdict(config), asdict(FuserConfig())
    new = ("options", "sharer_kinds", "channel", "sharer_input")
    return {name: value for name, value in values.items() if name not in new or value != defaults[name]}


def parse_config(raw: dict[str, Any]) -> FuserConfig:
    """The inverse of `config_to_json`; every value is checked against its type, and nothing is imported.

    Raises:
        FuserConfigError: an unknown name, or a value of the wrong type.
    """
    check_names(raw, FuserConfig, "fuser")
    values = dict(raw)
    if "complex" in raw:
        check_names(raw["complex"], ComplexConfig, "`complex`")
        values["complex"] = ComplexConfig(**raw["complex"])
    if "channel" in raw:
        check_names(raw["channel"], ChannelConfig, "`channel`")
        values["channel"] = ChannelConfig(**raw["channel"])
    if raw.get("sharer_kinds") is not None:
        values["sharer_kinds"] = [SharerKind(**entry) for entry in raw["sharer_kinds"]]
    return FuserConfig(**values)


def check_version(raw: Any, where: str, key: str = "format_version") -> None:
    """Refuse a description without version, or of a later one.

    Raises:
        FuserFormatError: names the file.
    """
    version = raw.get(key) if isinstance(raw, dict) else None
    # `true` in JSON is an int in Python.
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FuserFormatError(f"{where} has no format version, so it is no fuser of this package.")
    if version > FORMAT_VERSION:
        raise FuserFormatError(
            f"{where} has format version {version}, but this release reads versions up to {FORMAT_VERSION}. "
            "Upgrade: pip install --upgrade c2c-lightning"
        )


def _check_kinds(recorded: dict[str, str], where: str) -> None:
    """Refuse a fuser whose kind is defined outside of this package and unknown, or another class of the same name."""
    for name, path in recorded.items():
        try:
            found = class_path(find_kind(name))
        except FuserConfigError as error:
            module = str(path).rpartition(".")[0]
            raise FuserFormatError(
                f"{where} is of the fuser kind {name!r}, class {path}, which this process does not know. A fuser "
                f"directory never runs code: `import {module}` before loading, or for a command set the environment "
                f"variable {KINDS_VARIABLE}={module}, if you trust that module."
            ) from error
        if found != path:
            raise FuserFormatError(
                f"{where} is of the fuser kind {name!r}, class {path}, but here {name!r} is {found}. Import the "
                "module that the fuser was trained with, or register one of the two classes by another name."
            )
