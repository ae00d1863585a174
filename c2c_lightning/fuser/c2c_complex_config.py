"""Settings of the fuser kind `c2c_c`."""

from dataclasses import dataclass
from typing import Literal

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range


@dataclass(frozen=True)
class ComplexConfig:
    """Structure of a C2C-C fuser; the defaults are the authors' recipe (paper, appendix A.1.3).

    Attributes:
        activation: of the MLP that projects the sharer's entries; without effect with `swiglu`.
        layer_norm: whether its hidden layers are normalised.
        residual: whether its input is added to its output, where sharer and receiver have the same width.
        swiglu: whether its hidden layers are SwiGLU layers.
        concat: whether its output is combined with the receiver's own entries by a linear map.
        weight_granularity: one weight per `token`; per KV head (`head_merged` computes them from all heads together,
            `head` from each head alone); per `value` of a head; or one learned weight per layer (`scalar`).
        weight_features: input of the weighting: the receiver's `key`, `value` or `both`; with `projected_` the
            projected entries too; without effect with `scalar`.
        weight_hidden_dim: width of the weighting network.
        weight_dropout: its dropout probability (fixed in the released code).
        weight_init: start value of `scalar` weights, before the sigmoid.
        weight_temperature: divisor of the weight logits.
        receiver_share: how much of the receiver's entries is kept: `whole`, `rest` (1 - weight, whatever the gates), or
            `none`. Only with `whole` are closed gates the bare receiver.
    """

    activation: Literal["gelu", "relu", "silu"] = "gelu"
    layer_norm: bool = True
    residual: bool = True
    swiglu: bool = True
    concat: bool = True
    weight_granularity: Literal["scalar", "token", "head", "head_merged", "value"] = "head_merged"
    weight_features: Literal["key", "value", "both", "projected_key", "projected_value", "projected_both"] = (
        "projected_key"
    )
    weight_hidden_dim: int = 1024
    weight_dropout: float = 0.1
    weight_init: float = 0.0
    weight_temperature: float = 1.0
    receiver_share: Literal["whole", "rest", "none"] = "whole"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("weight_hidden_dim",), 1, 2**20)
        if not 0 <= self.weight_dropout < 1:
            raise FuserConfigError(f"weight_dropout is {self.weight_dropout}, but must be in [0, 1).")
        if self.weight_temperature <= 0:
            raise FuserConfigError(f"weight_temperature is {self.weight_temperature}, but must be above 0.")


@dataclass(frozen=True)
class ComplexKindConfig(ComplexConfig):
    """All settings of a C2C-C fuser.

    Attributes:
        hidden_dim: width of the MLP that projects the sharer's entries.
        num_layers: its depth, at least 1.
        dropout: its dropout probability.
    """

    hidden_dim: int = 1024
    num_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        check_range(self, ("num_layers",), 1, 1000)
        check_range(self, ("hidden_dim",), 1, 2**20)
        if not 0 <= self.dropout < 1:
            raise FuserConfigError(f"dropout is {self.dropout}, but must be in [0, 1).")
