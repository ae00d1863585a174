"""Configuration of a fuser; the defaults are the values of the released code."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerAlignment
from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.errors import FuserConfigError

# Importing the kinds registers them.
from c2c_lightning.fuser.c2c_complex import ComplexKind as ComplexKind
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.c2c_kind import C2CKind as C2CKind
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.hub_kind import HubKind as HubKind
from c2c_lightning.fuser.kind import FuserKind, find_kind, kind_name
from c2c_lightning.fuser.low_rank import LowRankKind as LowRankKind
from c2c_lightning.fuser.memory import MemoryKind as MemoryKind
from c2c_lightning.fuser.ridge import RidgeKind as RidgeKind
from c2c_lightning.fuser.ridge_start import RidgeStartKind as RidgeStartKind
from c2c_lightning.fuser.rotary_free import RotaryFreeKind as RotaryFreeKind
from c2c_lightning.fuser.several_layers import SeveralLayersKind as SeveralLayersKind

_SHARED = ("hidden_dim", "intermediate_dim", "num_layers", "dropout")
"""Settings of `FuserConfig` that are settings of kinds."""


SharerInput = Literal["kv", "hidden"]


@dataclass(frozen=True)
class SharerKind:
    """The fuser kind of one sharer, where it differs from that of the others.

    Attributes:
        kind: a registered name or class path; default that of `FuserConfig`.
        options: settings of the kind; those left out are the ones of `FuserConfig`.
        sharer_input: default that of `FuserConfig`.
    """

    kind: type[FuserKind] | str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sharer_input: SharerInput | None = None

    def __post_init__(self) -> None:
        """Store the kind by its name."""
        if self.kind is not None:
            object.__setattr__(self, "kind", kind_name(find_kind(self.kind)))
        check_fields(self)


@dataclass(frozen=True)
class FuserConfig:
    """Kind and sizes of a fuser, and how it is used; the sizes of the language models are not part of it.

    Every value is checked when the configuration is built, from YAML, Python or a file alike.

    Attributes:
        kind: `c2c`; an ablation of paper table 8: `project` (the projected sharer replaces the receiver's entries),
            `fuse` (adds the projection, no head weighting, no gates), `no_weights`, `no_gates`; `c2c_c` (paper,
            appendix A.1.3); `low_rank` (a few per cent of the size); `rotary_free` (another kind, named by
            `options.kind`, on keys without position); `ridge` (a linear map in closed form); `several_layers`
            (another kind on k sharer layers, found on the first rows); `memory` (a few slots that
            pool both caches over layers and tokens); `hub` (another kind, named by `options.kind`, behind an encoder
            into a latent that many models share); or a kind of one's own by its registered name or class path, see
            `fuser.kind`.
        hidden_dim: width of the fuser. This and the next three are settings of the kinds that have a setting of the
            same name.
        intermediate_dim: inner width of its blocks (not of `c2c_c`).
        num_layers: depth, at least 3: shared block, projection blocks, output projection; with `c2c_c` that of the MLP
            from the sharer to the receiver, at least 1.
        dropout: dropout probability in each block.
        gate_noise: noise on the gate logits in training: one Gumbel variable (as released), `logistic` (a true
            Gumbel-sigmoid) or `none` (the gate is hard in training too and does not learn).
        gate_init: start value of the gate logits.
        initial_temperature: gate temperature at the start.
        final_temperature: gate temperature after `anneal_steps`.
        anneal_steps: optimizer steps over which the temperature falls.
        temperature_schedule: `geometric` (as released) or `linear` (the paper's text).
        layer_alignment: `terminal` (as released), `depth` (normalised depth), `upper_half` (the upper halves by depth),
            `correlated` (found by `lightning fit` on its first rows: the sharer layer that predicts the receiver's
            entries best; the map is written into `layer_map`), `answer` (found likewise: the receiver's upper half
            reads the sharer layer that predicts the response best), or `skip` (terminal; layers without a partner are
            not fused).
        layer_map: an explicit map per sharer: one sharer layer per receiver layer, -1 where nothing is fused;
            overrides `layer_alignment`.
        token_alignment: `auto` (identity when the tokenizers agree, else `longest`), `identity`, `first`, `longest`,
            `span`, `span_template` (template tokens are fused too), or `span_cut` (the sharer's tokens are cut where
            the receiver's end).
        sharer_order: `sequential` (each sharer is fused into the result of the one before) or `parallel` (residuals
            from the clean receiver are summed).
        span_order: `sectioned` (the tokens after a span are computed on its fused entries) or `one_pass`.
        fusion_mode: which tokens are fused: `prefill` (the prompt but its last token), `prompt` (that token too), or
            `decode` (response tokens too). `replace` is `prefill` for kinds that do not read the receiver's entries
            (`ridge`, `project`): the receiver does not process the fused tokens.
        channel: precision in which the sharers' entries are read: `bits` 32, 16, 8 or 4; see `ChannelConfig`.
        complex: settings that only `c2c_c` has.
        options: settings of `kind`, by name; needed for those of a kind of one's own.
        sharer_input: what the fuser reads of the sharer: keys and values (`kv`), or the hidden states that each layer
            computes them from (`hidden`), of root mean square 1.
        sharer_kinds: kind and settings per sharer, where they differ; default the ones above for every sharer.
    """

    kind: type[FuserKind] | str = "c2c"
    hidden_dim: int = 1024
    intermediate_dim: int = 1024
    num_layers: int = 3
    dropout: float = 0.1
    gate_noise: Literal["gumbel", "logistic", "none"] = "gumbel"
    gate_init: float = 0.0
    initial_temperature: float = 1.0
    final_temperature: float = 0.001
    anneal_steps: int = 1929
    temperature_schedule: Literal["geometric", "linear"] = "geometric"
    layer_alignment: LayerAlignment = "terminal"
    layer_map: list[list[int | None]] | None = None
    token_alignment: TokenAlignment = "auto"
    sharer_order: Literal["sequential", "parallel"] = "sequential"
    span_order: Literal["sectioned", "one_pass"] = "sectioned"
    fusion_mode: Literal["prefill", "replace", "prompt", "decode"] = "prefill"
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    complex: ComplexConfig = field(default_factory=ComplexConfig)
    options: dict[str, Any] = field(default_factory=dict)
    sharer_input: SharerInput = "kv"
    sharer_kinds: list[SharerKind] | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        object.__setattr__(self, "kind", kind_name(find_kind(self.kind)))
        check_fields(self)
        check_range(self, ("anneal_steps",), 1, 10**12)
        if min(self.initial_temperature, self.final_temperature) <= 0:
            raise FuserConfigError("initial_temperature and final_temperature must be above 0.")
        for own in [SharerKind(), *(self.sharer_kinds or ())]:
            self._kind_settings(own)
        for own in self.sharer_kinds or [SharerKind()]:
            kind, settings = self._kind_settings(own)
            check_fusion_mode(self.fusion_mode, kind.used_kinds(settings))

    @property
    def searches_layers(self) -> bool:
        """Whether the layer map is found from data, and not known yet."""
        return self.layer_map is None and self.layer_alignment not in ALIGNMENTS

    def kinds(self, num_sharers: int) -> list[tuple[type[FuserKind], Any]]:
        """Class and configuration of each sharer's fuser.

        Raises:
            FuserConfigError: `sharer_kinds` has another number of entries.
        """
        return [self._kind_settings(own) for own in self._own_kinds(num_sharers)]

    def reads_hidden(self, num_sharers: int) -> list[bool]:
        """For each sharer, whether the fuser reads its hidden states."""
        return [(own.sharer_input or self.sharer_input) == "hidden" for own in self._own_kinds(num_sharers)]

    def _own_kinds(self, num_sharers: int) -> Sequence[SharerKind]:
        given: Sequence[SharerKind] = self.sharer_kinds or [SharerKind()] * num_sharers
        if len(given) != num_sharers:
            raise FuserConfigError(
                f"sharer_kinds has {len(given)} entries for {num_sharers} sharers. Give one for each sharer, or none."
            )
        return given

    def _kind_settings(self, own: SharerKind) -> tuple[type[FuserKind], Any]:
        kind = find_kind(own.kind or self.kind)
        # `options` are those of `kind`: a sharer of another kind has its own only.
        common = self.options if find_kind(self.kind) is kind else {}
        shared = {**{name: getattr(self, name) for name in _SHARED}, **asdict(self.complex)}
        return kind, kind.make_config({**common, **own.options}, shared)


def check_fusion_mode(mode: str, kinds: Sequence[type[FuserKind]]) -> None:
    """Refuse a fusion mode in which a fuser kind cannot be computed.

    Args:
        mode: the fusion mode.
        kinds: a kind and those within it.

    Raises:
        FuserConfigError: names the kind.
    """
    reading = [kind_name(kind) for kind in kinds if kind.reads_receiver]
    if mode == "replace" and reading:
        raise FuserConfigError(
            f"`fusion_mode: replace` leaves out the receiver's pass over the fused tokens, but the fuser kind "
            f"{reading[0]!r} reads its entries. Set `kind: ridge`, alone or within `rotary_free`, or "
            "`fusion_mode: prefill`."
        )
    pooling = [kind_name(kind) for kind in kinds if not kind.is_pointwise]
    if mode in ("prompt", "decode") and pooling:
        raise FuserConfigError(
            f"`fusion_mode: {mode}` fuses tokens one at a time, but the fuser kind {pooling[0]!r} reads all tokens of "
            "a span. Set `fusion_mode: prefill`."
        )
