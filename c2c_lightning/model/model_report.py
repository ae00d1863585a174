"""A report on a language model: the layers that take part in C2C, or the reason for which it is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.export.format import find_directory, read_description
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.position_probe import Positions, probe_positions
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen


@dataclass(frozen=True)
class ModelLayer:
    """One decoder layer.

    Attributes:
        number: its number in the model.
        kind: its attention, or the layer that takes its place.
        window: tokens that it attends to; None for all.
        geometry: shapes of its entries; None for a layer that does not take part.
        positions: how positions enter its keys; None for a layer that does not take part.
        rope: parameters of its rotary embedding, as the configuration has them.
    """

    number: int
    kind: str
    window: int | None = None
    geometry: LayerGeometry | None = None
    positions: Positions | None = None
    rope: str = ""

    def describe(self) -> str:
        """The layer in words, without its number."""
        window = "" if self.window is None else f" of {self.window} tokens"
        if self.geometry is None:
            return f"{self.kind}{window}: not fused"
        return f"{self.kind}{window}: {self.geometry.describe()}, {self._position_text()}"

    def _position_text(self) -> str:
        if self.positions is Positions.ROTARY:
            return f"rotary positions ({self.rope})" if self.rope else "rotary positions"
        return "absolute positions" if self.positions is Positions.ABSOLUTE else "no positions in its keys"


@dataclass(frozen=True)
class ModelReport:
    """A language model as a participant of C2C.

    Attributes:
        name: the model.
        architecture: its class, empty where it could not be built.
        layers: its decoder layers; none where it is refused.
        max_tokens: length of its context, if the configuration names it.
        refusal: why it cannot take part; None if it can.
        fits: for each model that a fuser names whether this one has the same shapes; none without a fuser.
    """

    name: str
    architecture: str = ""
    layers: tuple[ModelLayer, ...] = ()
    max_tokens: int | None = None
    refusal: str | None = None
    fits: tuple["RoleFit", ...] = ()

    @property
    def num_fused(self) -> int:
        """Number of layers that take part."""
        return sum(layer.geometry is not None for layer in self.layers)

    def layer_groups(self) -> Iterator[tuple[str, str]]:
        """Numbers of layers that are alike, and their description."""
        numbers: dict[str, list[int]] = {}
        for layer in self.layers:
            numbers.setdefault(layer.describe(), []).append(layer.number)
        for text, members in numbers.items():
            yield _ranges(members), text


@dataclass(frozen=True)
class RoleFit:
    """Whether a model can be used in a role of a fuser.

    Attributes:
        role: `receiver`, or `sharer` with its number.
        trained_with: the model that the fuser was trained with.
        problem: what differs; None if it fits.
    """

    role: str
    trained_with: str
    problem: str | None = None


def report_model(model: LMSpec | str | FrozenLM, fuser: str | Path | None = None) -> ModelReport:
    """Report on a language model.

    Args:
        model: a directory or hub id, or a loaded model.
        fuser: a fuser directory or hub id that the model is compared with.

    Raises:
        ModelLoadError: the model cannot be loaded.
        FuserFormatError: the fuser cannot be read.

    Example:
        >>> report_model("embedded:receiver").num_fused
        4
    """
    description = None if fuser is None else read_description(find_directory(fuser))
    if isinstance(model, str):
        model = LMSpec(model)
    try:
        lm = model if isinstance(model, FrozenLM) else load_frozen(model)
    except UnsupportedModelError as error:
        return ModelReport(model.path if isinstance(model, LMSpec) else "", refusal=str(error))
    fits = () if description is None else tuple(_fits(lm, description))
    return ModelReport(lm.spec.path, type(lm.model).__name__, tuple(_layers(lm)), lm.max_tokens, None, fits)


def _layers(lm: FrozenLM) -> Iterator[ModelLayer]:
    config = lm.model.config.get_text_config(decoder=True)
    cache, kinds = DynamicCache(config=config).layers, getattr(config, "layer_types", None)
    geometry = iter(lm.geometry.layers)
    positions = iter(probe_positions(lm.model, lm.geometry.num_layers, any(g.is_latent for g in lm.geometry.layers)))
    for number, layer in enumerate(cache):
        # A cache layer knows its window; the type of a layer is in the configuration where types differ.
        kind = kinds[number] if kinds else _kind_of(layer)
        if not isinstance(layer, CacheLayerMixin):
            yield ModelLayer(number, _without_entries(layer, kind))
            continue
        window = getattr(layer, "sliding_window", None)
        yield ModelLayer(
            number, kind.replace("_", " "), window, next(geometry, None), next(positions, None), _rope(config, kind)
        )


def _kind_of(layer: Any) -> str:
    return "sliding_attention" if getattr(layer, "sliding_window", None) is not None else "full_attention"


def _without_entries(layer: Any, kind: str) -> str:
    """What a layer without entries of its own does."""
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        return f"{kind.replace('_', ' ')} (keeps a state)"
    return f"{kind.replace('_', ' ')} without a cache of its own"


def _rope(config: Any, kind: str) -> str:
    """The rotary embedding of a kind of layer, by the configuration."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get(kind, rope)
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return ""
    part = rope.get("partial_rotary_factor", 1.0)
    of_head = "" if part == 1.0 else f", {part:g} of the width"
    return f"{rope.get('rope_type', 'default')}, base {rope['rope_theta']:g}{of_head}"


def _fits(lm: FrozenLM, description: FuserDescription) -> Iterator[RoleFit]:
    sharers = description.sharers
    names = ["sharer"] if len(sharers) == 1 else [f"sharer {number}" for number in range(len(sharers))]
    for role, wanted in zip(("receiver", *names), (description.receiver, *sharers), strict=True):
        same = wanted.geometry == lm.geometry
        problem = None if same else f"needed are {wanted.geometry.describe()}, but it has {lm.geometry.describe()}"
        yield RoleFit(role, wanted.name, problem)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as text, consecutive ones as a range."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
