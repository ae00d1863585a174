"""The fuser kind `rotary_free`: another kind that works on keys without their rotary position.

    fused keys = receiver + redo(F(undo(receiver), undo(sharer)))

`undo` removes the rotary embedding of a model's keys at their positions, `redo` applies the receiver's. F need not
learn positions, and the positions of two fused tokens may differ, as in private context (after arXiv 2606.13594:
`RemoveRoPE, map, AddRoPE`; arXiv 2608.03893).

Axes: L layers of the stack, F fused tokens, H KV heads, D head width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.errors import FuserConfigError, FuserInputError
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, find_kind, kind_name, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.rotary_tables import RotaryTables
from c2c_lightning.fuser.wrapping_kind import WrappingKind
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.kv.rotary import LayerRotary


@dataclass(frozen=True)
class RotaryFreeConfig:
    """The kind within.

    Attributes:
        kind: name of the kind that is computed on position-free keys.
        settings: its configuration.
    """

    kind: str
    settings: Any


@register_kind("rotary_free")
class RotaryFreeKind(WrappingKind):
    """Wraps another kind; parameters, gates and operations are those of that kind."""

    config_class = RotaryFreeConfig
    needs_rotary = True
    reads_receiver = False  # the kind within may

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: RotaryFreeConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the kind within for `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        self.inner: FuserKind = find_kind(config.kind)(pairs, receiver, sharer, config.settings, new_gate)  # type: ignore[call-arg]
        self.receiver_rotary: RotaryTables | None = None
        self.sharer_rotary: RotaryTables | None = None

    @classmethod
    def make_config(cls, options: Mapping[str, Any], shared: Mapping[str, Any]) -> RotaryFreeConfig:
        """See `FuserKind.make_config`; `options` are `kind` (default `c2c`) and the settings of that kind."""
        inner = find_kind(options.get("kind", "c2c"))
        if issubclass(inner, RotaryFreeKind):
            raise FuserConfigError("kind `rotary_free` cannot contain itself. Set `options.kind` to another kind.")
        own = {name: value for name, value in options.items() if name != "kind"}
        return RotaryFreeConfig(kind_name(inner), inner.make_config(own, shared))

    @classmethod
    def used_kinds(cls, config: RotaryFreeConfig) -> list[type[FuserKind]]:
        """See `FuserKind.used_kinds`."""
        return [cls, *find_kind(config.kind).used_kinds(config.settings)]

    @property
    def sharer_layers(self) -> list[int]:
        """Those of the kind within."""
        return self.inner.sharer_layers

    @sharer_layers.setter
    def sharer_layers(self, layers: list[int]) -> None:
        """Set with the kind within, which does not exist yet when `FuserKind` sets its own."""

    def bind_rotary(self, receiver: Sequence[LayerRotary], sharer: Sequence[LayerRotary]) -> None:
        """See `FuserKind.bind_rotary`."""
        device = next(self.parameters()).device
        self.all_sharer_tables = list(sharer)
        self.receiver_rotary = RotaryTables([receiver[n] for n in self.receiver_layers], device=device)
        self.sharer_rotary = self._tables_of(self.sharer_layers)

    def _tables_of(self, sharer_layers: Sequence[int]) -> RotaryTables:
        per_layer = len(sharer_layers) // len(self.receiver_layers)
        is_stack = list(sharer_layers) == self.sharer_layers
        tables, device = [self.all_sharer_tables[m] for m in sharer_layers], next(self.parameters()).device
        return RotaryTables(tables, per_layer if is_stack else 1, device)

    @property
    def closed_form_tokens(self) -> int:
        """See `FuserKind.closed_form_tokens`."""
        return self.inner.closed_form_tokens

    def fit_closed_form(self, receiver: PackedKV, sharer: PackedKV, candidates: Sequence[int]) -> None:
        """See `FuserKind.fit_closed_form`; entries are position-free."""
        self.inner.fit_closed_form(receiver, sharer, candidates)
        self.sharer_rotary = self._tables_of(self.sharer_layers)

    def position_free(
        self, receiver: PackedKV, sharer: PackedKV, fused: FusedTokens, sharer_layers: Sequence[int]
    ) -> tuple[PackedKV, PackedKV]:
        """See `FuserKind.position_free`."""
        assert self.receiver_rotary is not None, "bound with the models"
        assert fused.position is not None, "of a prompt's plan"
        assert fused.source_position is not None
        mine = self.receiver_rotary.undo(receiver.keys, fused.position)
        theirs = self._tables_of(sharer_layers).undo(sharer.keys, fused.source_position)
        return PackedKV(mine, receiver.values), PackedKV(theirs, sharer.values)

    def forward(
        self, receiver: Sequence[LayerKV], sharer: Sequence[LayerKV], fused: FusedTokens, noise: GateNoise
    ) -> PackedKV:
        """See `FuserKind.forward`.

        Raises:
            FuserInputError: no rotary tables, or no position ids.
        """
        if self.receiver_rotary is None or self.sharer_rotary is None:
            raise FuserInputError("a `rotary_free` fuser needs the models' rotary tables: use it within a C2CModel.")
        if fused.position is None or fused.source_position is None:
            raise FuserInputError(
                "a `rotary_free` fuser needs the position ids of the fused tokens: take the steps of a "
                "`PromptBatch.plan`, or fill in `FusedTokens.position` and `source_position`."
            )
        mine, theirs = self.packed(receiver, sharer, fused)
        mine = replace(mine, keys=self.receiver_rotary.undo(mine.keys, fused.position))
        theirs = PackedKV(self.sharer_rotary.undo(theirs.keys, fused.source_position), theirs.values)
        residual = self.inner.residual(mine, theirs, noise)
        return PackedKV(self.receiver_rotary.redo(residual.keys, fused.position), residual.values)

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """That of the kind within, on position-free keys."""
        return self.inner.residual(receiver, sharer, noise)

    def compiled_parts(self) -> list[nn.Module]:
        """See `FuserKind.compiled_parts`."""
        return self.inner.compiled_parts()

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: RotaryFreeConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`; rotations are not counted."""
        return find_kind(config.kind).linear_maps(receiver, sharer, config.settings)
