"""The fuser kind `hub`: a sharer is read through a common latent (paper, appendix A.5.2).

    latent = encoder(sharer)
    fused  = receiver + F(receiver, latent)

F is another kind, by default `c2c`. The encoder depends on the sharer alone and F, but for its gates, on the receiver
alone, so a `HubFuser` shares them between the pairs of many models; a fuser of this kind belongs to one pair.

Axes: L layers of the stack, F fused tokens, H KV heads, D head width, W latent width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_names, check_range
from c2c_lightning.fuser.kind import (
    FuserKind,
    GateNoise,
    LinearMaps,
    NewGate,
    find_kind,
    kind_name,
    register_kind,
)
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.wrapping_kind import WrappingKind
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.residual_mlp import ResidualMLP
from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import StackedRMSNorm, norm_layer_parameters

MAX_LATENT_LAYERS, MAX_LATENT_DIM, MAX_ENCODER_BLOCKS = 1000, 2**20, 1000


@dataclass(frozen=True)
class LatentConfig:
    """Sizes of the common latent and of the encoders; equal for all models of a hub.

    Attributes:
        latent_layers: number of layers of the latent; those of the deepest model lose nothing.
        latent_dim: width W of the latent of keys, and of values.
        encoder_blocks: residual blocks of an encoder, of inner width W.
        encoder_dropout: dropout probability in each of these blocks.
    """

    latent_layers: int = 16
    latent_dim: int = 512
    encoder_blocks: int = 1
    encoder_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("latent_layers",), 1, MAX_LATENT_LAYERS)
        check_range(self, ("latent_dim",), 1, MAX_LATENT_DIM)
        check_range(self, ("encoder_blocks",), 0, MAX_ENCODER_BLOCKS)
        if not 0 <= self.encoder_dropout < 1:
            raise FuserConfigError(f"encoder_dropout is {self.encoder_dropout}, but must be in [0, 1).")

    @property
    def geometry(self) -> LayerGeometry:
        """Shapes of a latent layer, as a cache of one head."""
        return LayerGeometry(1, self.latent_dim, self.latent_dim)


@dataclass(frozen=True)
class HubConfig:
    """Configuration of the kind.

    Attributes:
        latent: sizes of latent and encoders.
        kind: name of the kind F.
        settings: its configuration.
    """

    latent: LatentConfig
    kind: str
    settings: Any


class SideEncoder(nn.Module):
    """The encoder of keys, or of values: linear map, residual blocks, norm."""

    def __init__(self, num_layers: int, in_dim: int, config: LatentConfig) -> None:
        """Build it for `num_layers` layers with inputs of width `in_dim`."""
        super().__init__()
        width = config.latent_dim
        self.input = StackedLinear(num_layers, in_dim, width)
        blocks = (ResidualMLP(num_layers, width, width, config.encoder_dropout) for _ in range(config.encoder_blocks))
        self.blocks = nn.Sequential(*blocks)
        # Latents of different models have one scale.
        self.norm = StackedRMSNorm(num_layers, width)

    def forward(
        self, entries: Float[Tensor, "layers tokens kv_heads dim"]
    ) -> Float[Tensor, "layers tokens 1 latent_dim"]:
        """The latent, as entries of one head."""
        latent: Tensor = self.norm(self.blocks(self.input(entries.flatten(2))))
        return latent.unsqueeze(2)


class LatentEncoder(nn.Module):
    """P of the paper's appendix A.5.2: the keys and values of a sharer as a common latent."""

    def __init__(self, num_layers: int, sharer: LayerGeometry, config: LatentConfig) -> None:
        """Build it for `num_layers` layers of one shape."""
        super().__init__()
        self.keys = SideEncoder(num_layers, sharer.kv_heads * sharer.key_dim, config)
        self.values = SideEncoder(num_layers, sharer.kv_heads * sharer.value_dim, config)

    def forward(self, sharer: PackedKV) -> PackedKV:
        """The latent of packed tokens."""
        return PackedKV(self.keys(sharer.keys), self.values(sharer.values))

    def norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the norm layers."""
        return norm_layer_parameters(self)

    @staticmethod
    def linear_maps(sharer: LayerGeometry, config: LatentConfig) -> LinearMaps:
        """The needed operations of one layer."""
        width, maps = config.latent_dim, LinearMaps()
        for dim in (sharer.key_dim, sharer.value_dim):
            maps.first.append((sharer.kv_heads * dim, width))
            maps.other += [(width, width)] * (2 * config.encoder_blocks)
        return maps


@register_kind("hub")
class HubKind(WrappingKind):
    """An encoder in front of another kind, which reads the latent in the place of the sharer."""

    config_class = HubConfig

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: HubConfig,
        new_gate: NewGate,
    ) -> None:
        """Build encoder and F for `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        self.encoder = LatentEncoder(len(pairs), sharer, config.latent)
        self.inner = new_decoder(pairs, receiver, config, new_gate)

    @classmethod
    def make_config(cls, options: Mapping[str, Any], shared: Mapping[str, Any]) -> HubConfig:
        """See `FuserKind.make_config`; `options` are those of `LatentConfig`, `kind` (default `c2c`) and its settings.

        Raises:
            FuserConfigError: a kind that cannot read a latent, or an impossible value.
        """
        inner = find_kind(options.get("kind", "c2c"))
        has_closed_form = inner.fit_closed_form is not FuserKind.fit_closed_form
        if issubclass(inner, WrappingKind) or inner.needs_rotary or not inner.is_pointwise or has_closed_form:
            raise FuserConfigError(
                f"kind `hub` cannot contain {kind_name(inner)!r}: it needs a kind that is trained and reads keys and "
                "values of one layer. Set `options.kind` to `c2c` or `low_rank`, for example."
            )
        own = {name: value for name, value in options.items() if name in LatentConfig.__dataclass_fields__}
        rest = {name: value for name, value in options.items() if name not in (*own, "kind")}
        check_names(rest, inner.config_class, f"'hub' or {kind_name(inner)!r}")
        return HubConfig(LatentConfig(**own), kind_name(inner), inner.make_config(rest, shared))

    @classmethod
    def used_kinds(cls, config: HubConfig) -> list[type[FuserKind]]:
        """See `FuserKind.used_kinds`."""
        return [cls, *find_kind(config.kind).used_kinds(config.settings)]

    def norm_parameters(self) -> Iterator[nn.Parameter]:
        """See `FuserKind.norm_parameters`."""
        yield from self.encoder.norm_parameters()
        yield from self.inner.norm_parameters()

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        return self.inner.residual(receiver, self.encoder(sharer), noise)

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: HubConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        encoder = LatentEncoder.linear_maps(sharer, config.latent)
        inner = find_kind(config.kind).linear_maps(receiver, config.latent.geometry, config.settings)
        # The latent has a gradient, so the maps that read it belong to the others.
        return LinearMaps(encoder.first, [*encoder.other, *inner.first, *inner.other])


def new_decoder(
    pairs: Sequence[tuple[int, int]], receiver: LayerGeometry, config: HubConfig, new_gate: NewGate
) -> FuserKind:
    """F of the kind `hub`: the kind that reads latent layers.

    Args:
        pairs: receiver layers and the layers that they are fused with.
        receiver: shapes of the receiver layers.
        config: configuration of the hub kind.
        new_gate: makes gates.
    """
    decoder: FuserKind = find_kind(config.kind)(pairs, receiver, config.latent.geometry, config.settings, new_gate)  # type: ignore[call-arg]
    return decoder
