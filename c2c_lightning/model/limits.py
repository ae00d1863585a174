"""Limits of a language model: context length, rotary tables, vocabulary."""

from functools import cached_property
from typing import Any

from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.errors import PromptError

_WINDOWED = ("sliding_attention", "chunked_attention", "hybrid_sliding")


class ModelLimits:
    """The sequences and token ids that a model can process.

    Attributes:
        has_fixed_rotary: whether a fuser uses the rotary table of short sequences.
    """

    def __init__(self, model: Any, name: str) -> None:
        """Take a causal LM, and its name for messages."""
        self.model, self.name = model, name
        self.has_fixed_rotary = False

    @property
    def max_tokens(self) -> int | None:
        """Longest sequence that its position embeddings allow, in tokens, if the config names it."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def window(self) -> int | None:
        """Width of the narrowest attention window, in columns of the cache, padding included; None without windows."""
        config = self.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ()
        widths = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        is_windowed = not kinds or any(kind in _WINDOWED for kind in kinds)
        return min((int(width) for width in widths if width), default=None) if is_windowed else None

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

    @property
    def num_positions(self) -> int | None:
        """Number of positions with one rotary table, if the config names it."""
        return self.rotary_switch or self.max_tokens

    @property
    def num_embeddings(self) -> int:
        """Number of token ids that have an embedding."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def check_length(self, num_tokens: int) -> None:
        """Refuse a sequence that is longer than the model's context.

        Raises:
            PromptError: with both lengths.
        """
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            raise PromptError(
                f"a sequence of {num_tokens} tokens is longer than the context of {self.name} "
                f"({self.max_tokens} tokens). Shorten the prompt, or drop such rows with `data.max_length`."
            )
        if self.has_fixed_rotary and self.rotary_switch is not None and num_tokens > self.rotary_switch:
            raise PromptError(
                f"a `rotary_free` fuser knows the rotary table of {self.name} for up to {self.rotary_switch} tokens, "
                f"but a sequence has {num_tokens}. Shorten the prompt, or use another fuser kind."
            )

    def check_continuation(self, num_cached: int, num_tokens: int) -> None:
        """Refuse to continue a cache beyond the length at which the model changes its rotary table.

        Raises:
            PromptError: with the lengths.
        """
        if self.rotary_switch is not None and 0 < num_cached <= self.rotary_switch < num_tokens:
            raise PromptError(
                f"{self.name} uses another rotary table beyond {self.rotary_switch} tokens, for which a fused "
                f"cache of {num_cached} tokens is not valid, but prompt and response have up to {num_tokens} tokens. "
                f"Shorten the prompt, or set `max_new_tokens` so that they fit into {self.rotary_switch} tokens."
            )

    def check_ids(self, tokens: TokenBatch) -> None:
        """Refuse token ids that have no embedding.

        Raises:
            PromptError: with the largest id and the number of embeddings.
        """
        ids, size = tokens.input_ids, self.num_embeddings
        if not ids.numel():
            raise PromptError(f"a prompt for {self.name} has no tokens.")
        if ids.is_floating_point():
            raise PromptError(f"the token ids of a prompt are {ids.dtype}, but must be integers.")
        # Prompts are checked where they are made, on the CPU.
        if ids.device.type != "cpu":  # reading a value would be a host sync
            return
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= size:
            raise PromptError(
                f"the token ids of a prompt are {low} to {high}, but {self.name} has embeddings for 0 to "
                f"{size - 1}. Use the tokenizer that belongs to the model, or resize its embeddings and train them."
            )
