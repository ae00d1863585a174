"""The choices that make a fuser, with the released code's values as defaults."""

from dataclasses import dataclass, field
from typing import Literal

from c2c_lightning.alignment.layer_alignment import LayerAlignment
from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig

FuserKind = Literal["c2c", "no_weights", "fuse", "project", "no_gates", "c2c_c"]


@dataclass(frozen=True)
class FuserConfig:
    """What a fuser is and how it is used; sizes of the models are not part of it.

    Attributes:
        kind: `c2c`; an ablation of paper table 8: `project` (sharer only, replaces the receiver's entries), `fuse`
            (adds the projection, no weights, no gates), `no_weights`, `no_gates`; or `c2c_c` (paper, appendix A.1.3:
            the sharer's entries are brought to the receiver's size first).
        hidden_dim: width of the fuser.
        intermediate_dim: inner width of its blocks; `c2c_c` has none.
        num_layers: depth, at least 3: shared block, projection blocks, projection out; with `c2c_c` that of the MLP
            from the sharer to the receiver, at least 1.
        dropout: share of activations dropped in each block while training.
        gate_noise: noise on the gate logits while training: one Gumbel (as released), `logistic` (a true
            Gumbel-sigmoid) or `none` (the gate is hard in training too and does not learn).
        gate_init: start value of the gate logits.
        initial_temperature: gate temperature at the start.
        final_temperature: gate temperature after `anneal_steps`.
        anneal_steps: optimizer steps over which the temperature falls.
        temperature_schedule: `geometric` (as released) or `linear` (the paper's text).
        layer_alignment: `terminal` (as released), `depth` (normalised depth), or `skip` (terminal, layers without a
            partner are not fused).
        layer_map: for each sharer an explicit map, one sharer layer per receiver layer, -1 where nothing is fused;
            overrides `layer_alignment`.
        token_alignment: `auto` (identity when the tokenizers agree, else `longest`), `identity`, `first`, `longest`,
            `span`, or `span_template` (template tokens are fused too).
        sharer_order: `sequential` (each sharer fuses into the result of the former) or `parallel` (residuals from the
            clean receiver are summed).
        span_order: `sectioned` (what follows a span is computed on its fused entries) or `one_pass`.
        fusion_mode: what is fused: `prefill` (the prompt but its last token), `prompt` (that token too), or `decode`
            (response tokens too).
        complex: what only `c2c_c` has.
    """

    kind: FuserKind = "c2c"
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
    layer_map: list[list[int]] | None = None
    token_alignment: TokenAlignment = "auto"
    sharer_order: Literal["sequential", "parallel"] = "sequential"
    span_order: Literal["sectioned", "one_pass"] = "sectioned"
    fusion_mode: Literal["prefill", "prompt", "decode"] = "prefill"
    complex: ComplexConfig = field(default_factory=ComplexConfig)

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        least = 1 if self.kind == "c2c_c" else 3
        if self.num_layers < least:
            raise FuserConfigError(f"num_layers is {self.num_layers}, but a fuser needs at least {least}.")
        if min(self.hidden_dim, self.intermediate_dim, self.anneal_steps) < 1:
            raise FuserConfigError("hidden_dim, intermediate_dim and anneal_steps must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise FuserConfigError(f"dropout is {self.dropout}, but must lie in [0, 1).")
        if min(self.initial_temperature, self.final_temperature) <= 0:
            raise FuserConfigError("gate temperatures must be above 0.")
