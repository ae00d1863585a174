"""Receiver layers that are fused in one go: one stack of weights over packed tokens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.gate import Gate, draw_uniform
from c2c_lightning.fuser.layer_fuser import build_layer_fuser
from c2c_lightning.fuser.packing import PackedKV, pack
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.layer import LayerKV

GateNoise = tuple[Tensor | None, Tensor | None]
"""Noise of keys and of values, (layers, fused, kv_heads, 1 or head_dim) each; None for hard gates."""


class LayerGroup(nn.Module, ABC):
    """Receiver layers of one shape that read sharer layers of one shape.

    Every weight and buffer has the layers as its first dimension.

    Attributes:
        receiver_layers: the receiver layers, ascending.
        sharer_layers: the sharer layer that each of them reads.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Take `pairs` of receiver and sharer layers."""
        super().__init__()
        self.receiver_layers, self.sharer_layers = [list(side) for side in zip(*pairs, strict=True)]

    @property
    @abstractmethod
    def gates(self) -> list[Gate]:
        """The learnable gates, of keys and of values (the same one twice if they share it); empty without gates."""

    @abstractmethod
    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """F of Eq. 3 on packed tokens: what is added to the receiver's entries.

        Args:
            receiver: the receiver's entries.
            sharer: what each of them reads.
            noise: gate noise of keys and of values, None for hard gates.
        """

    @abstractmethod
    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Uniform draws for the gates of keys and of values, (layers, batch, kv_heads, tokens, 1 or head_dim) each.

        Args:
            num_layers: layers that are drawn for.
            batch: rows.
            tokens: columns of the span, padding included, as the released code draws.
        """

    def forward(
        self, receiver: Sequence[LayerKV], sharer: Sequence[LayerKV], read: FusedTokens, noise: GateNoise
    ) -> PackedKV:
        """What is added to the receiver's entries that are fused.

        Args:
            receiver: the receiver's cache in this group's layers.
            sharer: the sharer's cache in the layers that they read.
            read: the fused tokens and what they read.
            noise: gate noise of keys and of values, None for hard gates.
        """
        like = next(self.parameters())
        mine, theirs = pack(receiver, read.row, read.token, like), pack(sharer, read.row, read.source, like)
        return self.residual(mine, theirs, noise)

    def one_layer(
        self, place: int, receiver: LayerKV, sharer: LayerKV, read: FusedTokens, noise: GateNoise
    ) -> PackedKV:
        """`forward` for the one layer that stands at `place` in the group."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        one = {name: tensor[place : place + 1] for name, tensor in tensors.items()}
        added: PackedKV = functional_call(self, one, ([receiver], [sharer], read, noise))
        return added


class C2CGroup(LayerGroup):
    """C2C and its ablations: keys and values have fusers of their own."""

    def __init__(
        self, pairs: Sequence[tuple[int, int]], receiver: LayerGeometry, sharer: LayerGeometry, config: FuserConfig
    ) -> None:
        """Make the fusers of keys and of values for `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        self.kv_heads = receiver.kv_heads
        heads, sharer_heads = receiver.kv_heads, sharer.kv_heads
        self.keys = build_layer_fuser(len(pairs), (heads, receiver.key_dim), (sharer_heads, sharer.key_dim), config)
        self.values = build_layer_fuser(
            len(pairs), (heads, receiver.value_dim), (sharer_heads, sharer.value_dim), config
        )

    @property
    def gates(self) -> list[Gate]:
        """One for keys and one for values; empty for ablations without gates."""
        return [part.gate for part in (self.keys, self.values) if isinstance(part.gate, Gate)]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `LayerGroup.residual`."""
        keys = self.keys(receiver.keys, sharer.keys, noise[0])
        return PackedKV(keys, self.values(receiver.values, sharer.values, noise[1]))

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number for each example, KV head and token, for keys and values apart."""
        draws = draw_uniform(num_layers, batch, self.kv_heads, tokens, self.gates[0])
        keys, values = draws.unsqueeze(-1).unbind(1)
        return keys, values
