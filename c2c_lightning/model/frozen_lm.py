"""A frozen language model: prefill, hidden states and loss; the fast paths are hidden in these three methods."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from c2c_lightning.alignment.vocabulary import check_vocabulary
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.data.encode import TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import PromptError, UnsupportedModelError
from c2c_lightning.kv.cache import Prefill
from c2c_lightning.kv.geometry import KVGeometry, probe_geometry
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.output_head import OutputHead, output_head, transformer_body
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.ops.ragged_attention import (
    RaggedBatch,
    SequenceLengths,
    is_contiguous,
    ragged_attention,
    supports_ragged_attention,
)

#: Cost of one more attention call per layer, in FLOP: some 50 microseconds at 100 GFLOP/s.
SEQUENCE_FLOP = 5_000_000


@dataclass(frozen=True)
class LMSpec:
    """Which language model to load, and how.

    Attributes:
        path: a local directory, a hub id, or `embedded:NAME` for a model of the package.
        revision: hub revision (branch, tag or commit).
        dtype: type of its weights; `auto` keeps the checkpoint's.
        device: where it lives; default the fuser's device.
        prompt_template: chat template for a base model that has none: a named one or a path to a .jinja file. A fuser
            directory gives a `PromptTemplate`, which is never a path.
        chat_template_kwargs: arguments of its chat template for every conversation, such as `{enable_thinking: true}`
            (default false, as released).
        quantization: quantisation of its weights while they are loaded, as transformers' `quantization_config`
            (`{quant_method: bitsandbytes, load_in_4bit: true}`). A checkpoint that is quantised already needs none.
    """

    path: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    prompt_template: str | PromptTemplate | None = None
    quantization: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def template(self) -> PromptTemplate | None:
        """The prompt template, loaded."""
        given = self.prompt_template
        return given if given is None or isinstance(given, PromptTemplate) else PromptTemplate.from_name_or_file(given)


class FrozenLM:
    """A causal language model that never changes, with its tokenizer.

    It is no `nn.Module`, so that it stays out of state dicts, optimizers, DDP and `train()` of its owner.

    Attributes:
        model: the transformers causal LM, in eval mode, without gradients.
        tokenizer: its tokenizer.
        spec: how it was loaded.
        geometry: shapes of its KV-cache.
        is_sharded: whether each process holds a part of every decoder layer. Every prefill is then a complete forward
            pass, however little is needed: processes gather layers together.
        lock: held during every forward pass. Ragged batches change the attention function of the whole model, so that
            passes of several threads take turns.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, spec: LMSpec) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer, self.spec = tokenizer, spec
        self.geometry: KVGeometry = probe_geometry(model, spec.path)
        check_vocabulary(tokenizer, model, spec.path)
        self.is_sharded = False
        self.lock = threading.RLock()

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
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def rotary_switch(self) -> int | None:
        """Length from which on the model uses another rotary table (Phi-3 family); None if the tables are equal.

        Entries of one table are wrong for the other, so that transformers recomputes the cache there.
        """
        config = self.model.config.get_text_config()
        rope, switch = getattr(config, "rope_parameters", None), getattr(config, "original_max_position_embeddings", 0)
        if not switch or not isinstance(rope, dict) or rope.get("short_factor") == rope.get("long_factor"):
            return None
        return int(switch)

    @property
    def drops_cache(self) -> bool:
        """Whether transformers drops its cache at some length although both rotary tables are equal (Phi-3 family)."""
        config = self.model.config
        return self.rotary_switch is None and bool(getattr(config, "original_max_position_embeddings", None))

    def check_length(self, num_tokens: int) -> None:
        """Refuse a sequence that is longer than the model's context.

        Raises:
            PromptError: with both lengths.
        """
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            raise PromptError(
                f"a sequence of {num_tokens} tokens is longer than the context of {self.spec.path} "
                f"({self.max_tokens} tokens). Shorten the prompt, or drop such rows with `data.max_length`."
            )

    def check_continuation(self, num_cached: int, num_tokens: int) -> None:
        """Refuse to continue a cache beyond the length at which the model changes its rotary table.

        Raises:
            PromptError: with the lengths.
        """
        if self.rotary_switch is not None and 0 < num_cached <= self.rotary_switch < num_tokens:
            raise PromptError(
                f"{self.spec.path} uses another rotary table beyond {self.rotary_switch} tokens, for which a fused "
                f"cache of {num_cached} tokens is not valid, but prompt and response have up to {num_tokens} tokens. "
                f"Shorten the prompt, or set `max_new_tokens` so that they fit into {self.rotary_switch} tokens."
            )

    def check_ids(self, tokens: TokenBatch) -> None:
        """Refuse token ids that have no embedding.

        Raises:
            PromptError: with the largest id and the number of embeddings.
        """
        ids, size = tokens.input_ids, self.model.get_input_embeddings().num_embeddings
        if not ids.shape[1]:
            raise PromptError(f"a prompt for {self.spec.path} has no tokens.")
        if ids.device.type != "cpu":  # reading a value would be a host sync
            return
        low, high = (int(ids.min()), int(ids.max())) if ids.numel() else (0, 0)
        if low < 0 or high >= size:
            raise PromptError(
                f"the token ids of a prompt are {low} to {high}, but {self.spec.path} has embeddings for 0 to "
                f"{size - 1}. Use the tokenizer that belongs to the model, or resize its embeddings and train them."
            )

    def prefill_tokens(
        self, tokens: TokenBatch, until: int, prefix: LayerStack | None = None, num_layers: int | None = None
    ) -> LayerStack:
        """Keys and values of the tokens between the end of `prefix` and column `until`; arguments as in `prefill`."""
        begin = prefix[0].num_tokens if prefix else 0
        ids, positions = tokens.input_ids[:, begin:until], tokens.positions[:, begin:until]
        return self.prefill(ids, tokens.mask[:, :until], positions, prefix, num_layers)

    def prefill(
        self,
        input_ids: Int[Tensor, "batch new"],
        attention_mask: Int[Tensor, "batch all"],
        position_ids: Int[Tensor, "batch new"],
        prefix: LayerStack | None = None,
        num_layers: int | None = None,
    ) -> LayerStack:
        """Keys and values of new tokens, on the model's device.

        Args:
            input_ids: (batch, new).
            attention_mask: (batch, prefix + new).
            position_ids: (batch, new).
            prefix: the cache that the new tokens attend to.
            num_layers: number of layers that are needed, from the first; default all.
        """
        num_layers = self.geometry.num_layers if num_layers is None or self.is_sharded else num_layers
        ids, mask, positions = (tensor.to(self.device) for tensor in (input_ids, attention_mask, position_ids))
        self.check_length(mask.shape[1])
        if prefix and not prefix[0].num_tokens:
            prefix = None
        if prefix:
            self.check_continuation(prefix[0].num_tokens, mask.shape[1])
        prefill = Prefill(self.model, num_layers, to_end=self.is_sharded)
        if num_layers == 0 or input_ids.shape[1] == 0:
            if self.is_sharded:
                one = ids.new_zeros(1, 1)
                prefill.run(one, torch.ones_like(one), one)
            return self.empty_kv(len(input_ids))[:num_layers]
        with self.lock:
            if prefix or not self.gains_by_ragged(mask) or not mask.any() or not is_contiguous(mask):
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
        self.check_length(tokens.input_ids.shape[1])
        self.check_continuation(begin, tokens.input_ids.shape[1])
        ids, positions, edit = tokens.input_ids[:, begin:], tokens.positions[:, begin:], prefix.edit
        body, new_mask = transformer_body(self.model), tokens.mask[:, begin:]
        with self.lock:
            if not self.gains_by_ragged(new_mask) or not is_contiguous(tokens.mask):
                cache = prefix.cache(edit)
                padded: Tensor = body(
                    input_ids=ids, attention_mask=tokens.mask, position_ids=positions, past_key_values=cache,
                    use_cache=False,
                ).last_hidden_state  # fmt: skip
                return padded
            ragged = RaggedBatch.of(new_mask.bool())
            rows = SequenceLengths(ragged.lengths, tuple(tokens.mask[:, :begin].sum(1).tolist()))
            cache = prefix.cache(None if edit is None else ragged.packed_edit(edit), rows.join)
            with ragged_attention(self.model, rows):
                packed = body(
                    input_ids=ragged.pack(ids), position_ids=ragged.pack(positions), past_key_values=cache,
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
        states = hidden.flatten(0, 1).index_select(0, supervised)
        return self.head.summed_loss(states, targets.flatten().index_select(0, supervised))

    @property
    def supports_ragged(self) -> bool:
        """Whether ragged batches may run without padding, see `ops.ragged_attention`.

        On a CPU reading the mask is free and padding costs its tokens; on a GPU it is the other way round.
        """
        return self.device.type == "cpu" and not self.is_sharded and supports_ragged_attention(self.model)

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
        return [LayerKV(empty(g.kv_heads, g.key_dim), empty(g.kv_heads, g.value_dim)) for g in layers]


def tokenizer_spec(spec: LMSpec, tokenizer: PreTrainedTokenizerBase) -> TokenizerSpec:
    """How a model reads conversations: its tokenizer, and the prompt template of a base model."""
    return TokenizerSpec(tokenizer, spec.template, spec.chat_template_kwargs)


@contextmanager
def exclusive(models: Sequence[FrozenLM]) -> Iterator[None]:
    """Holds the locks of several models, in one order everywhere, so that threads cannot block each other for ever."""
    with ExitStack() as stack:
        for lm in sorted(models, key=id):
            stack.enter_context(lm.lock)
        yield
