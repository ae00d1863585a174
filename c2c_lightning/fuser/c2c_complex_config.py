"""The choices that only C2C-C has."""

from dataclasses import dataclass
from typing import Literal

from c2c_lightning.errors import FuserConfigError


@dataclass(frozen=True)
class ComplexConfig:
    """What a fuser of kind `c2c_c` is made of; defaults are the authors' recipe (paper, appendix A.1.3).

    Attributes:
        activation: of the MLP that projects the sharer's entries; without effect with `swiglu`.
        layer_norm: whether its hidden layers are normalised.
        residual: whether its input is added to its result, where sharer and receiver have the same width.
        swiglu: whether its hidden layers gate themselves.
        concat: whether what it projects is combined with the receiver's own entries by a linear map.
        weight_granularity: one weight for each `token`, for each KV head (`head_merged` reads all heads at once, `head`
            each for itself), for each `value` of a head, or one learned for each layer (`scalar`).
        weight_features: what the weights depend on: the receiver's `key`, `value` or `both`, and with `projected_` what
            was projected for them too; without effect with `scalar`.
        weight_hidden_dim: width of the weighting.
        weight_dropout: share of its activations dropped while training (fixed in the released code).
        weight_init: start value of `scalar` weights, before the sigmoid.
        weight_temperature: what the weights are divided by before the sigmoid.
        receiver_share: how much of the receiver's entries is kept: the `whole`, the `rest` that the weight leaves
            (1 - weight, whatever the gates), or `none`. Only with `whole` are closed gates the bare receiver.
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
        if self.weight_hidden_dim < 1:
            raise FuserConfigError(f"weight_hidden_dim is {self.weight_hidden_dim}, but must be at least 1.")
        if not 0 <= self.weight_dropout < 1:
            raise FuserConfigError(f"weight_dropout is {self.weight_dropout}, but must lie in [0, 1).")
        if self.weight_temperature <= 0:
            raise FuserConfigError(f"weight_temperature is {self.weight_temperature}, but must be above 0.")
