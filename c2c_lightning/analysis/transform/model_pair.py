"""A sharer and a receiver, their aligned layers, and the entries of their aligned tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerAlignment
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import LayerMapError, UnsupportedModelError
from c2c_lightning.fuser.rotary_tables import RotaryTables
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.ops.ragged_attention import supports_ragged_attention

Part = Literal["keys", "position_free_keys", "values"]
PARTS: tuple[Part, ...] = ("keys", "position_free_keys", "values")
"""What is transformed: keys as they are cached, keys without their rotary position, values."""

PartEntries = Mapping[Part, Sequence[Float[Tensor, "_ _ _"]]]
"""For each part the entries of every layer, (F, H, D) with heads and widths of that layer's own."""


@dataclass(frozen=True)
class AlignedEntries:
    """The entries of a batch's aligned tokens, in float32.

    Attributes:
        receiver_kv: the receiver's cache over all prompt tokens but the last.
        tokens: the aligned tokens.
        sharer: the sharer's entries of each pair of layers.
        receiver: the receiver's, likewise.
    """

    receiver_kv: LayerStack
    tokens: FusedTokens
    sharer: PartEntries
    receiver: PartEntries


class ModelPair:
    """Two frozen models.

    Attributes:
        receiver: the model whose entries are the targets.
        sharer: the model whose entries are transformed.
        layers: pairs of a receiver layer and its sharer layer, first layer first.
    """

    def __init__(self, receiver: FrozenLM, sharer: FrozenLM, layers: Sequence[tuple[int, int]]) -> None:
        """Find the rotary tables of the layers.

        Raises:
            UnsupportedModelError: a model whose cache has no per-token entries in some layers, or keys of an unknown
                position embedding.
        """
        for lm in (receiver, sharer):
            check_entries(lm)
        if not supports_ragged_attention(receiver.model):
            raise UnsupportedModelError(
                f"the attention of {receiver.spec.path} is neither `sdpa` nor `eager` of transformers' registry, so "
                "its attention outputs cannot be compared. Choose another receiver."
            )
        self.receiver, self.sharer, self.layers = receiver, sharer, list(layers)
        own, theirs = zip(*self.layers, strict=True)
        self._receiver_rotary = [RotaryTables([receiver.rotary[n]], device=receiver.device) for n in own]
        self._sharer_rotary = [RotaryTables([sharer.rotary[m]], device=receiver.device) for m in theirs]

    def widths(self, part: Part) -> list[tuple[int, int]]:
        """Width of the sharer's and of the receiver's entries, heads flattened, for each pair of layers."""
        dim = "value_dim" if part == "values" else "key_dim"
        geometries = ((self.sharer.geometry.layers[m], self.receiver.geometry.layers[n]) for n, m in self.layers)
        return [(s.kv_heads * getattr(s, dim), r.kv_heads * getattr(r, dim)) for s, r in geometries]

    @torch.no_grad()
    def entries(self, prompt: PromptBatch) -> AlignedEntries:
        """Prefill both models and take the entries of the aligned tokens."""
        prompt = prompt.to(self.receiver.device)
        tokens = _aligned_tokens(prompt)
        # Autocast would change the entries of a float32 model in training, but not where they are measured.
        with torch.autocast(self.receiver.device.type, enabled=False):
            own = self.receiver.prefill_tokens(prompt.receiver, prompt.num_receiver_tokens - 1)
            theirs = self.sharer.prefill_tokens(
                prompt.sharers[0], prompt.plan.num_read_tokens[0], num_layers=1 + max(m for _, m in self.layers)
            )
        device, row = self.receiver.device, tokens.row
        sharer = [_take(theirs[m], row, tokens.source, device) for _, m in self.layers]
        receiver = [_take(own[n], row, tokens.token, device) for n, _ in self.layers]
        return AlignedEntries(
            own,
            tokens,
            _parts(sharer, self._sharer_rotary, tokens.source_position),
            _parts(receiver, self._receiver_rotary, tokens.position),
        )

    def replaced(
        self, aligned: AlignedEntries, keys: Sequence[Tensor], values: Sequence[Tensor], is_position_free: bool
    ) -> LayerStack:
        """The receiver's cache with other entries in the place of those of the aligned tokens.

        Args:
            aligned: entries of a batch.
            keys: of each pair of layers, (F, H, D).
            values: likewise.
            is_position_free: whether the keys get the receiver's rotary position now.
        """
        stack, at = list(aligned.receiver_kv), aligned.tokens
        for index, (n, _) in enumerate(self.layers):
            new = keys[index]
            if is_position_free:
                assert at.position is not None
                new = self._receiver_rotary[index].redo(new[None], at.position)[0]
            old, place = stack[n], (at.row, slice(None), at.token)
            stack[n] = replace(old, keys=_put(old.keys, place, new), values=_put(old.values, place, values[index]))
        return stack


def aligned_layers(
    receiver: FrozenLM, sharer: FrozenLM, alignment: LayerAlignment, only_last: bool = False
) -> list[tuple[int, int]]:
    """Pairs of a receiver layer and its sharer layer.

    Args:
        receiver: the receiver.
        sharer: the sharer.
        alignment: rule, see `alignment.layer_alignment`.
        only_last: the last receiver layer alone, as in the paper.

    Raises:
        LayerMapError: one sharer layer for several receiver layers: no map of the sharer's cache to the receiver's.
    """
    sizes = receiver.geometry.num_layers, sharer.geometry.num_layers
    pairs = [(n, m) for n, m in enumerate(ALIGNMENTS[alignment](*sizes)) if m is not None]
    pairs = pairs[-1:] if only_last else pairs
    repeated, times = Counter(m for _, m in pairs).most_common(1)[0]
    if times > 1:
        raise LayerMapError(
            f"`layer_alignment: {alignment}` aligns sharer layer {repeated} with {times} receiver layers, since the "
            f"sharer has {sizes[1]} layers and the receiver {sizes[0]}. A transformation needs one sharer layer for "
            "each receiver layer: use `layer_alignment: skip`, which leaves out receiver layers without a partner."
        )
    return pairs


def check_entries(lm: FrozenLM) -> None:
    """Refuse a model that does not keep ordinary keys and values of every token in every layer.

    Raises:
        UnsupportedModelError: a hybrid, or a model that caches latents.
    """
    name = f"{lm.spec.path} ({lm.model.config.model_type})"
    if lm.layout is not None:
        kept = lm.layout.num_attention_layers
        raise UnsupportedModelError(
            f"{name} keeps keys and values of every token in {kept} of its {len(lm.layout.layers)} layers only, so "
            "its cache cannot be transformed. Use a model with ordinary attention in all layers."
        )
    if any(layer.is_latent for layer in lm.geometry.layers):
        raise UnsupportedModelError(
            f"{name} caches latents instead of keys and values (MLA), so its cache cannot be transformed. Use a model "
            "with ordinary attention."
        )


def _aligned_tokens(prompt: PromptBatch) -> FusedTokens:
    """The tokens of all spans, row by row."""
    if not prompt.plan.one_pass:
        empty = prompt.receiver.input_ids.new_zeros(0)
        return FusedTokens(empty, empty, empty, empty, empty)
    return FusedTokens.join([step.fused_tokens[0] for step in prompt.plan.one_pass])


def _take(layer: LayerKV, row: Tensor, token: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keys and values of some tokens, (F, H, D) each."""
    row, token = row.to(layer.keys.device), token.to(layer.keys.device)
    keys, values = (part[row, :, token].to(device, torch.float32) for part in (layer.keys, layer.values))
    return keys, values


def _parts(
    layers: Sequence[tuple[Tensor, Tensor]], rotary: Sequence[RotaryTables], position: Tensor | None
) -> PartEntries:
    assert position is not None, "of a prompt's plan"
    free = [table.undo(keys[None], position)[0] for (keys, _), table in zip(layers, rotary, strict=True)]
    return {
        "keys": [keys for keys, _ in layers],
        "position_free_keys": free,
        "values": [values for _, values in layers],
    }


def _put(entries: Tensor, place: tuple[Tensor, slice, Tensor], new: Float[Tensor, "F H D"]) -> Tensor:
    """A copy of (B, H, T, D) with new entries at pairs of row and token."""
    changed = entries.clone()
    changed[place] = new.to(entries.dtype)
    return changed
