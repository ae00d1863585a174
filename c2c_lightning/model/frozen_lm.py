"""A frozen language model: prefill, hidden states and loss; the fast paths are hidden in these three methods."""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from c2c_lightning.alignment.vocabulary import check_vocabulary
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.data.encode import TokenizerSpec
from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.cache import CACHE_ARGUMENT
from c2c_lightning.kv.cache_probe import probe_cache
from c2c_lightning.kv.continuation import check_states, ignores_states, prefill_by_token
from c2c_lightning.kv.geometry import KVGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack, with_states
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.kv.rotary import LayerRotary
from c2c_lightning.kv.states import ModelStates
from c2c_lightning.model.hidden_states import hidden_states_by_token, hidden_states_of_one
from c2c_lightning.model.limits import ModelLimits
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.output_head import OutputHead, fold_batches, output_head, transformer_body
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.model.rotary_probe import PROBED_POSITIONS, probe_rotary
from c2c_lightning.model.turn_lock import TurnLock
from c2c_lightning.ops.ragged_attention import (
    RaggedBatch,
    SequenceLengths,
    is_contiguous,
    ragged_attention,
    supports_ragged_attention,
)
from c2c_lightning.ops.ragged_probe import runs_ragged
from c2c_lightning.ops.unread_mask import unread_mask

#: Cost of one more attention call per layer, in FLOP: some 50 microseconds at 100 GFLOP/s.
SEQUENCE_FLOP = 5_000_000


class FrozenLM:
    """A causal language model that never changes, with its tokenizer.

    It is no `nn.Module`, so that it stays out of state dicts, optimizers, DDP and `train()` of its owner.

    Attributes:
        model: the transformers causal LM, in eval mode, without gradients.
        tokenizer: its tokenizer.
        spec: how it was loaded.
        layout: the layers of its cache, for a hybrid model; None if all layers keep keys and values.
        continues_by_token: whether a cache is continued token by token, see `continuation`.
        geometry: shapes of its KV-cache.
        limits: the sequences and token ids that it can process.
        runs_ragged: whether ragged batching gives its own entries; found when it is loaded on a CPU.
        is_sharded: whether each process holds a part of every decoder layer. Every prefill is then a complete forward
            pass, however little is needed: processes gather layers together.
        records_hidden: whether caches hold the hidden states that entered each layer, for fusers that read them.
        can_generate: whether it can answer by itself; a sharer in another process cannot.
        lock: held during every forward pass. Ragged batches change the attention function of the whole model, so that
            passes of several threads take turns.
    """

    can_generate = True

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, spec: LMSpec) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer, self.spec = tokenizer, spec
        self.geometry: KVGeometry = probe_cache(model, spec.path)
        self.layout = CacheLayout.of(model.config)
        self.continues_by_token = ignores_states(self.model, self.layout)
        check_vocabulary(tokenizer, model, spec.path)
        fold_batches(self.model)
        self.limits = ModelLimits(self.model, spec.path)
        self.runs_ragged = (
            self.device.type == "cpu"
            and supports_ragged_attention(model)
            and runs_ragged(self.model, self.geometry.num_layers, self.layout)
        )
        self.is_sharded = self.records_hidden = False
        self.lock = TurnLock()

    def __deepcopy__(self, memo: dict[int, object]) -> "FrozenLM":
        """Itself: a copy of a frozen model is the same model."""
        return self

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def to(self, device: torch.device) -> None:
        """Move it, unless its spec ties it to a device."""
        if self.spec.device is None and self.device != device:
            self.model.to(device)

    @cached_property
    def head(self) -> OutputHead:
        """Computes logits and losses from its last hidden states."""
        return output_head(self.model)

    @cached_property
    def rotary(self) -> list[LayerRotary]:
        """The rotary table of each layer; the model is limited to their range from then on.

        Raises:
            UnsupportedModelError: keys that depend on their position in another way.
        """
        if any(layer.is_latent for layer in self.geometry.layers):
            raise UnsupportedModelError(
                f"{self.spec.path} caches a latent and a rotated part of the key (MLA), so the position of its keys "
                "cannot be removed. Use a fuser kind other than `rotary_free`."
            )
        self.limits.has_fixed_rotary = True
        last = min(PROBED_POSITIONS[-1], (self.limits.num_positions or PROBED_POSITIONS[-1] + 1) - 1)

        @torch.no_grad()
        def one_token_kv(ids: Tensor, positions: Tensor) -> LayerStack:
            return self.prefill(ids, torch.ones_like(ids), positions)

        return probe_rotary(self.model, one_token_kv, last, self.spec.path)

    @property
    def blocks(self) -> list[nn.Module]:
        """Its decoder layers, first layer first.

        Raises:
            UnsupportedModelError: its decoder layers cannot be identified.
        """
        blocks: list[nn.Module] = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not blocks:
            raise UnsupportedModelError(
                f"{self.spec.path} ({type(self.model).__name__}) has no decoder layers of transformers' kind, so its "
                "activations cannot be checkpointed, nor its weights sharded."
            )
        return blocks

    @property
    def tokenizer_spec(self) -> TokenizerSpec:
        """How it reads conversations."""
        return tokenizer_spec(self.spec, self.tokenizer)

    @property
    def max_tokens(self) -> int | None:
        """Longest sequence that its position embeddings allow, in tokens, if the config names it."""
        return self.limits.max_tokens

    def prefill_tokens(
        self, tokens: TokenBatch, until: int, prefix: LayerStack | None = None, num_layers: int | None = None
    ) -> LayerStack:
        """Keys and values of the tokens between the end of `prefix` and column `until`; arguments as in `prefill`."""
        begin = prefix[0].num_tokens if prefix else 0
        ids, positions = tokens.input_ids[:, begin:until], tokens.positions[:, begin:until]
        return self.prefill(ids, tokens.padding_mask(until), positions, prefix, num_layers)

    def prefill(
        self,
        input_ids: Int[Tensor, "batch new"],
        attention_mask: Int[Tensor, "batch all"] | None,
        position_ids: Int[Tensor, "batch new"],
        prefix: LayerStack | None = None,
        num_layers: int | None = None,
        by_row: bool = False,
    ) -> LayerStack:
        """Keys and values of new tokens, on the model's device.

        Args:
            input_ids: (batch, new).
            attention_mask: (batch, prefix + new); None where no token is padding.
            position_ids: (batch, new).
            prefix: the cache that the new tokens attend to.
            num_layers: number of attention layers that are needed, from the first; default all layers of the model.
            by_row: on a CPU run the rows without padding even where that is slower, so that the entries of a row do not
                depend on the lengths of the others, not even in their last bits.
        """
        # States of later layers than the last attention layer are needed where the model continues to its end.
        is_whole = num_layers is None and self.layout is not None and self.layout.ends_in_states
        # A sharded model gathers its layers in all processes together: each of them runs all layers.
        num_layers = self.geometry.num_layers if num_layers is None or self.is_sharded else num_layers
        ids, positions = (tensor.to(self.device) for tensor in (input_ids, position_ids))
        mask = None if attention_mask is None else attention_mask.to(self.device)
        num_cached = prefix[0].num_tokens if prefix else 0
        self.limits.check_length(num_cached + ids.shape[1])
        if prefix and not num_cached:
            prefix = None
        if prefix:
            check_states(prefix, self.layout, self.spec.path)
            self.limits.check_continuation(num_cached, num_cached + ids.shape[1])
        blocks = self.blocks if self.records_hidden else ()
        prefill = Prefill(self.model, num_layers, self.is_sharded or is_whole, self.layout, blocks)
        if num_layers == 0 or input_ids.shape[1] == 0:
            if self.is_sharded:
                one = ids.new_zeros(1, 1)
                prefill.run(one, torch.ones_like(one), one)
            return with_states(self.empty_kv(len(input_ids))[:num_layers], self.no_states)
        with self.lock:
            if prefix and self.continues_by_token:
                return prefill_by_token(prefill, ids, mask, positions, prefix)
            if by_row and self.supports_ragged and mask is None:
                mask = torch.ones_like(ids)
            is_ragged = mask is not None and (self.supports_ragged if by_row else self.gains_by_ragged(mask))
            # With a prefix the entries of short sequences would have to be moved next to their new tokens.
            if prefix or mask is None or not is_ragged or not mask.any() or not is_contiguous(mask):
                with unread_mask(self.model, mask):
                    return prefill.run(ids, mask, positions, prefix)
            ragged = RaggedBatch.of(mask.bool())
            with ragged_attention(self.model, SequenceLengths(ragged.lengths, (0,) * len(ragged.lengths))):
                packed = prefill.run(ragged.pack(ids), None, ragged.pack(positions))
        return [ragged.unpack_kv(layer) for layer in packed]

    def hidden_states(self, tokens: TokenBatch, prefix: ResponsePrefix) -> Float[Tensor, "batch new width"]:
        """Last hidden states of the tokens after a prefix, (batch, new, width); arbitrary at padding.

        Args:
            tokens: all tokens, those of the prefix included, on the model's device.
            prefix: the cache over the first of them.
        """
        begin = prefix.num_tokens
        self.limits.check_length(tokens.input_ids.shape[1])
        self.limits.check_continuation(begin, tokens.input_ids.shape[1])
        ids, positions, edit = tokens.input_ids[:, begin:], tokens.positions[:, begin:], prefix.edit
        body, new_mask = transformer_body(self.model), tokens.mask[:, begin:]
        with self.lock:
            if begin and self.continues_by_token:
                return hidden_states_by_token(body, ids, tokens.padding_mask(), positions, prefix)
            if self.layout is not None and ids.shape[1] == 1 and torch.is_grad_enabled():
                return hidden_states_of_one(body, ids, tokens.padding_mask(), positions, prefix)
            if not self.gains_by_ragged(new_mask) or not is_contiguous(tokens.mask):
                cache, mask = prefix.cache(edit), tokens.padding_mask()
                with unread_mask(self.model, mask):
                    padded: Tensor = body(
                        input_ids=ids, attention_mask=mask, position_ids=positions, **{CACHE_ARGUMENT: cache},
                        use_cache=False,
                    ).last_hidden_state  # fmt: skip
                return padded
            ragged = RaggedBatch.of(new_mask.bool())
            rows = SequenceLengths(ragged.lengths, tuple(tokens.mask[:, :begin].sum(1).tolist()))
            cache = prefix.cache(None if edit is None else ragged.packed_edit(edit), rows.join)
            with ragged_attention(self.model, rows):
                packed = body(
                    input_ids=ragged.pack(ids), position_ids=ragged.pack(positions), **{CACHE_ARGUMENT: cache},
                    use_cache=False,
                )  # fmt: skip
        return ragged.unpack(packed.last_hidden_state)

    def cross_entropy(
        self,
        hidden: Float[Tensor, "batch n width"],
        targets: Int[Tensor, "batch n"],
        supervised: Int[Tensor, " supervised"],
    ) -> Float[Tensor, ""]:
        """Summed cross-entropy in nats; the output head runs for the supervised tokens only.

        Args:
            hidden: (batch, n, width), last hidden states.
            targets: (batch, n), the token that follows each of them.
            supervised: (supervised,), indices of the supervised tokens in the flattened (batch, n).
        """
        # The head is the largest product of a small model: it runs at supervised positions only.
        states = hidden.flatten(0, 1).index_select(0, supervised)
        return self.head.summed_loss(states, targets.flatten().index_select(0, supervised))

    @property
    def supports_ragged(self) -> bool:
        """Whether ragged batches may run without padding, see `ops.ragged_attention`.

        On a CPU reading the mask is free and padding costs its tokens; on a GPU it is the other way round.
        """
        is_possible = self.runs_ragged and supports_ragged_attention(self.model)
        return is_possible and self.device.type == "cpu" and not self.is_sharded

    @cached_property
    def layer_flop(self) -> int:
        """FLOP of one token in one decoder layer, by its weights."""
        body = transformer_body(self.model)
        return 2 * int(body.num_parameters(exclude_embeddings=True)) // self.geometry.num_layers

    def gains_by_ragged(self, mask: Tensor) -> bool:
        """Whether the padding of `mask` (batch, columns) costs more than one attention call per row."""
        if not self.supports_ragged:
            return False
        padding = mask.numel() - int(mask.count_nonzero())
        return padding * self.layer_flop > len(mask) * SEQUENCE_FLOP

    def empty_kv(self, batch: int) -> LayerStack:
        """A cache of no tokens."""

        def empty(heads: int, dim: int) -> Tensor:
            # The model's dtype is that of its floating-point weights; quantised ones are integers.
            return torch.zeros(batch, heads, 0, dim, dtype=self.model.dtype, device=self.device)

        layers = self.geometry.layers
        entries = [LayerKV(empty(g.kv_heads, g.key_dim), empty(g.kv_heads, g.value_dim)) for g in layers]
        return with_states(entries, self.no_states)

    @property
    def no_states(self) -> ModelStates | None:
        """The states before the first token; None for a model without states."""
        return None if self.layout is None else ModelStates(self.layout, {})
