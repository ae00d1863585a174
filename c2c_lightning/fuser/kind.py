"""A fuser kind: one class with one configuration dataclass, found by its registered name or its class path.

A kind of one's own, in any module::

    @dataclass(frozen=True)
    class ScaleConfig:
        start: float = 0.0

    @register_kind("scale")
    class ScaleKind(FuserKind):
        config_class = ScaleConfig

        def __init__(self, pairs, receiver, sharer, config, new_gate):
            super().__init__(pairs)
            self.scale = nn.Parameter(torch.full((len(pairs), 1, 1, 1), config.start))

        def residual(self, receiver, sharer, noise):
            return PackedKV(self.scale * receiver.keys, self.scale * receiver.values)

`FuserConfig(kind="scale", options={"start": 0.5})` uses it once its module is imported.

Axes: L layers of a stack, F fused tokens of a batch, H KV heads, D head width.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn
from torch.func import functional_call

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_names, did_you_mean
from c2c_lightning.fuser.gate import Gate
from c2c_lightning.fuser.packing import PackedKV, pack, pack_hidden, pack_receiver
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.kv.rotary import LayerRotary
from c2c_lightning.ops.stacked_norm import norm_layer_parameters

GateNoise = tuple[Tensor | None, Tensor | None]
"""Noise of the key gates and of the value gates, (L, F, H, 1 or D) each; None for hard gates."""

NewGate = Callable[[int], Gate]
"""Makes the gates of a number of layers, with the start values of `FuserConfig`."""

KINDS_VARIABLE = "C2C_FUSER_KINDS"
"""Environment variable: modules, separated by commas, that are imported when a fuser kind is unknown."""


@dataclass(frozen=True)
class NoOptions:
    """Configuration of a kind without settings."""


@dataclass
class LinearMaps:
    """(inputs, outputs) of each linear map that one layer applies to one token.

    Attributes:
        first: maps that read the caches only: no gradient flows into their inputs.
        other: all other maps.
    """

    first: list[tuple[int, int]] = field(default_factory=list)
    other: list[tuple[int, int]] = field(default_factory=list)


class FuserKind(nn.Module, ABC):
    """F of Eq. 3 between receiver layers of one shape and sharer layers of one shape.

    The layers are stacked: every parameter and buffer of a pointwise kind has L as its first dimension. The tensors of
    the state dict are those of the fuser file.

    Attributes:
        config_class: dataclass of the kind's settings.
        needs_rotary: whether `bind_rotary` must be called before the kind is used.
        is_pointwise: whether each token of each layer is fused by itself. Other kinds may share parameters between
            layers; they are fused span by span (`fusion_mode: prefill`), and their layers cannot be pruned.
        reads_receiver: whether the residual depends on more of the receiver's entries than that it replaces them.
        reads_hidden: whether the sharer's hidden states are its input in the place of keys and values.
        receiver_layers: the receiver layers of the stack, ascending.
        sharer_layers: for each of them the sharer layer that it is fused with; k in a row for kinds that read k layers.
    """

    config_class: ClassVar[type[Any]] = NoOptions
    needs_rotary: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = True
    reads_receiver: ClassVar[bool] = True
    reads_hidden = False

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Stack `pairs` of receiver and sharer layers.

        Subclasses are built with `(pairs, receiver, sharer, config, new_gate)`: the pairs, the `LayerGeometry` of the
        receiver layers and of the sharer layers, an instance of `config_class`, and a `NewGate`.
        """
        super().__init__()
        self.receiver_layers, self.sharer_layers = [list(side) for side in zip(*pairs, strict=True)]

    @abstractmethod
    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """F of Eq. 3: the residual that is added to the receiver's entries, gates included.

        Args:
            receiver: the receiver's entries of the fused tokens.
            sharer: the sharer's entry that each of them is fused with.
            noise: noise of the key gates and of the value gates; None for hard gates.
        """

    @classmethod
    def make_config(cls, options: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
        """The kind's configuration: an instance of `config_class`.

        Args:
            options: settings of the kind by name.
            shared: settings of all kinds; those that the kind does not have are ignored.

        Raises:
            FuserConfigError: an unknown option, or an impossible value.
        """
        check_names(options, cls.config_class, f"{kind_name(cls)!r}")
        names = {known.name for known in fields(cls.config_class)}
        return cls.config_class(**{**{n: v for n, v in shared.items() if n in names}, **options})

    @classmethod
    def used_kinds(cls, config: Any) -> list[type["FuserKind"]]:
        """This class, and those of kinds within it."""
        return [cls]

    def bind_rotary(self, receiver: Sequence[LayerRotary], sharer: Sequence[LayerRotary]) -> None:
        """Take the rotary tables of the language models; called where `needs_rotary`.

        Args:
            receiver: those of all receiver layers.
            sharer: those of all sharer layers.
        """

    @property
    def closed_form_tokens(self) -> int:
        """Number of tokens of paired caches that `fit_closed_form` needs; 0 for a kind that is trained only."""
        return 0

    def fit_closed_form(self, receiver: PackedKV, sharer: PackedKV, candidates: Sequence[int]) -> None:
        """Compute the weights from paired caches of the same text; for kinds with `closed_form_tokens`.

        Args:
            receiver: the receiver's own entries in the layers of the stack.
            sharer: the sharer's entries of the same tokens in the candidate layers.
            candidates: numbers of the sharer layers that may be read.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form.")

    def position_free(
        self, receiver: PackedKV, sharer: PackedKV, fused: FusedTokens, sharer_layers: Sequence[int]
    ) -> tuple[PackedKV, PackedKV]:
        """The entries that `residual` is computed from: as they are, or without position.

        Args:
            receiver: the receiver's entries of the fused tokens.
            sharer: the sharer's, in `sharer_layers`.
            fused: the fused tokens.
            sharer_layers: numbers of the sharer's layers.
        """
        return receiver, sharer

    def sources_of(self, index: int) -> list[int]:
        """The sharer layers that one layer of the stack reads."""
        count = len(self.sharer_layers) // len(self.receiver_layers)
        return self.sharer_layers[index * count : (index + 1) * count]

    def compiled_parts(self) -> list[nn.Module]:
        """The modules that `compile_fuser` compiles: those that `residual` calls."""
        return list(self.children())

    @property
    def gates(self) -> list[Gate]:
        """Learnable gates: those of the keys, then those of the values (the same object if shared); or none."""
        return []

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Uniform draws for the gates of keys and of values, (L, B, H, tokens, 1 or D) each; needed with gates only.

        Args:
            num_layers: number of layers.
            batch: rows B.
            tokens: columns of the span, padding included, as the released code draws.
        """
        raise NotImplementedError(f"{type(self).__name__} has gates, so it must define `draw_uniform`.")

    def norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters besides the gates that weight decay must not change: by default those of all norm layers."""
        yield from norm_layer_parameters(self)

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: Any) -> LinearMaps:
        """The needed operations of one layer, for `lightning bench`.

        Raises:
            FuserConfigError: the kind does not define them.
        """
        raise FuserConfigError(
            f"the operations of the fuser kind {kind_name(cls)!r} cannot be counted: define "
            f"`{cls.__name__}.linear_maps`, or bench another kind."
        )

    def forward(
        self, receiver: Sequence[LayerKV], sharer: Sequence[LayerKV], fused: FusedTokens, noise: GateNoise
    ) -> PackedKV:
        """Residual of the fused tokens.

        Args:
            receiver: the receiver's cache in the layers of the stack.
            sharer: the sharer's cache in the layers that they are fused with.
            fused: the fused tokens.
            noise: noise of the key gates and of the value gates; None for hard gates.
        """
        return self.residual(*self.packed(receiver, sharer, fused), noise)

    def packed(
        self, receiver: Sequence[LayerKV], sharer: Sequence[LayerKV], fused: FusedTokens
    ) -> tuple[PackedKV, PackedKV]:
        """The receiver's and the sharer's entries of the fused tokens, in the type of the weights."""
        like, pack_sharer = next(self.parameters()), pack_hidden if self.reads_hidden else pack
        return (
            pack_receiver(receiver, fused.row, fused.token, like),
            pack_sharer(sharer, fused.row, fused.source, like),
        )

    def split(self) -> list[dict[str, Tensor]]:
        """The parameters and buffers of each layer, (1, ...), for `one_layer`.

        One split of each stack: its backward writes the gradient of the stack once, where that of a slice per layer
        fills a gradient as large as the whole stack for every layer.
        """
        parts = {name: tensor.split(1) for name, tensor in self._tensors().items()}
        return [{name: part[n] for name, part in parts.items()} for n in range(len(self.receiver_layers))]

    def layer_tensors(self, index: int) -> dict[str, Tensor]:
        """One entry of `split`, without splitting the other layers."""
        return {name: tensor[index : index + 1] for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def one_layer(
        self,
        tensors: dict[str, Tensor],
        receiver: LayerKV,
        sharer: Sequence[LayerKV],
        fused: FusedTokens,
        noise: GateNoise,
    ) -> PackedKV:
        """`forward` of one layer.

        Args:
            tensors: the parameters and buffers of the layer: an entry of `split`.
            receiver: the receiver's cache in this layer.
            sharer: the sharer's cache in the layers that it reads, see `sources_of`.
            fused: the fused tokens.
            noise: gate noise of this layer.
        """
        residual: PackedKV = functional_call(self, tensors, ([receiver], list(sharer), fused, noise))
        return residual


Kind = TypeVar("Kind", bound=type[FuserKind])

_REGISTERED: dict[str, type[FuserKind]] = {}


def register_kind(name: str) -> Callable[[Kind], Kind]:
    """Class decorator that gives a fuser kind a short name.

    Args:
        name: used in `FuserConfig.kind` and in fuser files.

    Raises:
        FuserConfigError: the name belongs to another class.
    """

    def register(kind: Kind) -> Kind:
        known = _REGISTERED.get(name)
        if known is not None and class_path(known) != class_path(kind):
            raise FuserConfigError(
                f"the fuser kind {name!r} is {class_path(known)} already. Register {class_path(kind)} by another name."
            )
        _REGISTERED[name] = kind
        return kind

    return register


def class_path(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def kind_name(kind: type[FuserKind]) -> str:
    """The registered name of a kind, or its class path."""
    return next((name for name, known in _REGISTERED.items() if known is kind), class_path(kind))


def find_kind(kind: str | type[FuserKind]) -> type[FuserKind]:
    """The class of a fuser kind.

    A class path is only looked up among the classes that this process has defined: nothing is imported by a name that
    a file may have given. The exception are the modules that the user lists in the environment (`KINDS_VARIABLE`).

    Args:
        kind: a registered name, a class path, or the class itself.

    Raises:
        FuserConfigError: lists the registered names.
    """
    if isinstance(kind, type) and issubclass(kind, FuserKind):
        return kind
    kind = str(kind)
    found = _known(kind) or (_known(kind) if _import_listed() else None)
    if found is not None:
        return found
    names = ", ".join(_REGISTERED)
    advice = f"Import its module first, or list it in the environment variable {KINDS_VARIABLE}." if "." in kind else ""
    raise FuserConfigError(
        f"kind is {kind!r}, but must be one of {names}, or the class path of a FuserKind that is imported."
        + (f" {advice}" if advice else did_you_mean(kind, _REGISTERED))
    )


def _known(name: str) -> type[FuserKind] | None:
    matching = (kind for kind in _subclasses(FuserKind) if class_path(kind) == name)  # type: ignore[type-abstract]
    # The newest of several definitions: a notebook cell that is run again defines its class again.
    return _REGISTERED.get(name) or next(reversed(list(matching)), None)


def _subclasses(kind: type[FuserKind]) -> Iterator[type[FuserKind]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _import_listed() -> bool:
    """Import the modules that the environment lists; whether there are any."""
    listed = [name.strip() for name in os.environ.get(KINDS_VARIABLE, "").split(",") if name.strip()]
    for name in listed:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise FuserConfigError(f"{KINDS_VARIABLE} lists {name!r}, which cannot be imported: {error}.") from error
    return bool(listed)
