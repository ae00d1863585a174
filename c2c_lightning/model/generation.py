"""Going on from a filled cache with transformers' own `generate`."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.model.decoding import DecodeCache
from c2c_lightning.model.frozen import FrozenLM

# These look at the whole prompt; assisted decoding on a filled cache gets its last token only.
PROMPT_READERS = ("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "sequence_bias")


def generate(receiver: FrozenLM, prompt: PromptBatch, cache: Cache, **kwargs: Any) -> Any:
    """Generate from a cache that holds all prompt tokens but the last.

    Args:
        receiver: the model that answers.
        prompt: the prompts, on the receiver's device.
        cache: filled, and changed here.
        kwargs: everything that transformers' `generate` takes.

    Returns:
        (batch, prompt + new) ids, or what `return_dict_in_generate` asks for.

    Raises:
        GenerationError: a combination that would silently give wrong tokens.
    """
    tokens = prompt.receiver
    if kwargs.get("pad_token_id") is None and setting(receiver, kwargs, "pad_token_id") is None:
        kwargs["pad_token_id"] = pad_id(receiver)
    if expansion := _expansion(receiver, kwargs):
        # transformers repeats the ids for beams and several sequences, but not a cache that it is handed.
        cache.batch_repeat_interleave(expansion)
    kwargs |= {"attention_mask": tokens.mask, "past_key_values": cache}
    if kwargs.get("assistant_model") is not None or setting(receiver, kwargs, "prompt_lookup_num_tokens"):
        return _generate_assisted(receiver, tokens.input_ids, **kwargs)
    return receiver.model.generate(tokens.input_ids, position_ids=tokens.positions, **kwargs)


def setting(receiver: FrozenLM, kwargs: dict[str, Any], name: str) -> Any:
    """A generation setting: from the call, its generation config, or the model's."""
    if kwargs.get(name) is not None:
        return kwargs[name]
    return getattr(kwargs.get("generation_config") or receiver.model.generation_config, name, None)


def pad_id(receiver: FrozenLM) -> int:
    """The padding token, or the end token where a tokenizer has none."""
    tokenizer: Any = receiver.tokenizer
    if tokenizer is not None:
        for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if token is not None:
                return int(token)
    return 0


def _expansion(receiver: FrozenLM, kwargs: dict[str, Any]) -> int:
    """How often each prompt is repeated, 0 for once."""
    counts = [int(setting(receiver, kwargs, name) or 1) for name in ("num_beams", "num_return_sequences")]
    return max(counts) if max(counts) > 1 else 0


def _generate_assisted(receiver: FrozenLM, input_ids: Tensor, **kwargs: Any) -> Tensor:
    """Assisted and prompt-lookup decoding.

    transformers would feed the whole prompt again on top of the cache and silently go wrong; the last token with the
    full mask is exact.
    """
    if isinstance(kwargs["past_key_values"], DecodeCache):
        raise GenerationError("fusion_mode `decode` cannot take tokens back, so assisted decoding is not possible.")
    readers = [name for name in PROMPT_READERS if setting(receiver, kwargs, name) not in (None, 0, 1.0)]
    if readers or setting(receiver, kwargs, "return_dict_in_generate"):
        raise GenerationError(
            f"assisted decoding on a fused cache sees only the last prompt token, so "
            f"{readers or 'return_dict_in_generate'} would not be what it says. "
            "Leave it out, or generate without an assistant."
        )
    if kwargs.get("max_length") is not None:
        kwargs["max_new_tokens"] = kwargs.pop("max_length") - input_ids.shape[1]
    new = receiver.model.generate(input_ids[:, -1:], **kwargs)
    return torch.cat([input_ids[:, :-1], new], 1)
