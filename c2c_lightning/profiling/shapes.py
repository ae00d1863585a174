"""Sizes that determine the operations of a pair of models, from their configurations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import input_geometries, layer_maps
from c2c_lightning.kv.geometry import KVGeometry
from c2c_lightning.kv.latent import SharerView
from c2c_lightning.model.c2c import C2CModel


@dataclass(frozen=True)
class LMShape:
    """A decoder with grouped-query attention and a gated MLP in every layer.

    Attributes:
        num_layers: decoder layers.
        hidden: width of the residual stream.
        heads: query heads.
        kv_heads: KV heads.
        head_dim: width of one head.
        mlp: inner width of the MLP.
        vocab: entries of the output head.
        is_tied: whether the output head is the embedding, so that its weights count once.
    """

    num_layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    is_tied: bool = False

    @classmethod
    def of(cls, config: Any) -> Self:
        """The sizes in a transformers configuration.

        Raises:
            UnsupportedModelError: a mixture of experts, whose work depends on the tokens, or another attention.
        """
        text = config.get_text_config()
        fields = {
            "a mixture of experts": ("num_local_experts", "num_experts"),
            "with latent attention": ("kv_lora_rank",),
            "with values of another width than its keys": ("v_head_dim",),
            "with caches that layers share": ("num_kv_shared_layers",),
        }
        for kind, names in fields.items():
            if any(getattr(text, name, None) for name in names):
                raise UnsupportedModelError(
                    f"the work of {config.model_type}, a model {kind}, cannot be counted from its configuration. "
                    "Use models whose every layer has grouped-query attention and one MLP."
                )
        heads = text.num_attention_heads
        return cls(
            num_layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            mlp=text.intermediate_size,
            vocab=text.vocab_size,
            is_tied=bool(getattr(text, "tie_word_embeddings", False)),
        )

    @property
    def kv_weights(self) -> int:
        """Weights of one layer's key and value maps."""
        return 2 * self.hidden * self.kv_heads * self.head_dim

    @property
    def other_weights(self) -> int:
        """Weights of the rest of one layer: query and output maps, and the MLP's three."""
        return 2 * self.hidden * self.heads * self.head_dim + 3 * self.hidden * self.mlp

    @property
    def widths(self) -> int:
        """Entries that one layer's maps read and write for one token."""
        attended = self.heads * self.head_dim
        return (
            self.hidden
            + 2 * self.kv_heads * self.head_dim
            + 2 * (self.hidden + attended)
            + 3 * (self.hidden + self.mlp)
        )

    @property
    def head_weights(self) -> int:
        """Weights of the output head."""
        return self.hidden * self.vocab


@dataclass(frozen=True)
class FuserShape:
    """What one sharer's fuser computes for one fused token, over all receiver layers, keys and values.

    Attributes:
        first_weights: weights of the maps that read the caches, into which no gradient flows.
        other_weights: weights of all other maps.
        widths: entries that all maps read and write.
        lowest_layer: the lowest receiver layer that is fused; the receiver's backward pass ends there.
        sharer_layers: how many sharer layers are read, counted from the first.
    """

    first_weights: int
    other_weights: int
    widths: int
    lowest_layer: int
    sharer_layers: int

    @classmethod
    def of(cls, receiver: KVGeometry, sharers: Sequence[KVGeometry], config: FuserConfig) -> list[Self]:
        """The shape for each sharer.

        Raises:
            FuserConfigError: a fuser kind that does not define its operations.
        """
        shapes = []
        inputs, maps = input_geometries(sharers, config), layer_maps(receiver, sharers, config)
        parts = zip(inputs, maps, config.kinds(len(sharers)), strict=True)
        for sharer, layer_map, (kind, settings) in parts:
            pairs = [(n, m) for n, m in enumerate(layer_map) if m is not None]
            views = [SharerView(receiver.layers[n], sharer.layers[m]) for n, m in pairs]
            layers = [kind.linear_maps(view.receiver, view.geometry, settings) for view in views]
            first = [maps for layer in layers for maps in layer.first]
            other = [maps for layer in layers for maps in layer.other]
            shapes.append(
                cls(
                    first_weights=sum(read * written for read, written in first),
                    other_weights=sum(read * written for read, written in other),
                    widths=sum(read + written for read, written in first + other),
                    lowest_layer=min((n for n, _ in pairs), default=receiver.num_layers),
                    sharer_layers=max((m + 1 for _, m in pairs), default=0),
                )
            )
        return shapes


@dataclass(frozen=True)
class PairShape:
    """A receiver, its sharers and the fusers between them.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        fusers: one for each sharer.
        replaces_receiver: whether the receiver does not process the fused tokens (`fusion_mode: replace`).
    """

    receiver: LMShape
    sharers: tuple[LMShape, ...]
    fusers: tuple[FuserShape, ...]
    replaces_receiver: bool = False

    @classmethod
    def of(cls, model: C2CModel) -> Self:
        """The shape of a fused model."""
        fusers = FuserShape.of(model.receiver.geometry, [s.geometry for s in model.sharers], model.fuser.config)
        sharers = tuple(LMShape.of(sharer.model.config) for sharer in model.sharers)
        receiver = LMShape.of(model.receiver.model.config)
        return cls(receiver, sharers, tuple(fusers), model.mode.replaces_receiver)

    @property
    def lowest_layer(self) -> int:
        """The lowest receiver layer that any sharer is fused into."""
        return min((fuser.lowest_layer for fuser in self.fusers), default=self.receiver.num_layers)
