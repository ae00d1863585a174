"""Going on from a filled cache with transformers' own `generate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.model.decode_cache import DecodeCache
from c2c_lightning.model.frozen_lm import FrozenLM

REFUSED = {
    "use_mtp": "drafting heads read the receiver's hidden states over the whole prompt",
    "speculation_type": "a drafter that reads the receiver's hidden states needs them over the whole prompt",
    "cache_implementation": "the fused cache is the cache that is gone on from",
}
"""Settings that cannot be followed on a fused cache, and why."""


def generate(receiver: FrozenLM, prompt: PromptBatch, cache: Cache, **kwargs: Any) -> Any:
    """Generate from a cache that holds all prompt tokens but the last.

    Whatever looks at the prompt's ids (penalties, n-gram bans, prompt lookup, an assistant) sees all of them.

    Args:
        receiver: the model that answers.
        prompt: the prompts, on the receiver's device.
        cache: filled, and changed here.
        kwargs: everything that transformers' `generate` takes.

    Returns:
        (batch, prompt + new) ids, or what `return_dict_in_generate` asks for.

    Raises:
        GenerationError: a setting that would silently give wrong tokens.
    """
    _refuse(receiver, kwargs)
    tokens = prompt.receiver
    if setting(receiver, kwargs, "pad_token_id") is None:
        kwargs = _with_pad_id(kwargs, pad_id(receiver))
    if expansion := _expansion(receiver, kwargs):
        # transformers repeats the ids for beams and several sequences, but not a cache that it is handed.
        cache.batch_repeat_interleave(expansion)
    kwargs |= {"attention_mask": tokens.mask, "position_ids": tokens.positions, "past_key_values": cache}
    with _fed(receiver.model, cache, prompt.num_receiver_tokens):
        return receiver.model.generate(tokens.input_ids, **kwargs)


def _refuse(receiver: FrozenLM, kwargs: dict[str, Any]) -> None:
    for name, reason in REFUSED.items():
        if _asked(kwargs, name):
            raise GenerationError(f"`{name}` is not possible on a fused cache: {reason}. Leave it out.")
    if setting(receiver, kwargs, "use_cache") is False:
        raise GenerationError("generation goes on from a cache: `use_cache` must not be False.")


def _with_pad_id(kwargs: dict[str, Any], pad_token_id: int) -> dict[str, Any]:
    """The settings with a padding token; transformers wants them all in a generation config where there is one."""
    if kwargs.get("generation_config") is None:
        return {**kwargs, "pad_token_id": pad_token_id}
    config = deepcopy(kwargs["generation_config"])
    config.pad_token_id = pad_token_id
    return {**kwargs, "generation_config": config}


def setting(receiver: FrozenLM, kwargs: dict[str, Any], name: str) -> Any:
    """A generation setting: from the call, else its generation config, else the model's."""
    asked = _asked(kwargs, name)
    return getattr(receiver.model.generation_config, name, None) if asked is None else asked


def _asked(kwargs: dict[str, Any], name: str) -> Any:
    """A generation setting that the caller chose."""
    if kwargs.get(name) is not None:
        return kwargs[name]
    return getattr(kwargs.get("generation_config"), name, None)


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


@contextmanager
def _fed(receiver: nn.Module, cache: Cache, num_prompt_tokens: int) -> Iterator[None]:
    """While it lasts, the receiver's passes over `cache` get the tokens that the cache lacks, and no others.

    Assisted decoding begins with the whole prompt even where the cache holds it already, and would put it there twice.
    A cache that runs the clean models beside the answer is told each pass's tokens.
    """
    is_first = True

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        nonlocal is_first
        if kwargs.get("past_key_values") is not cache:  # an assistant may be the same model
            return None
        if is_first and kwargs["input_ids"].shape[1] >= num_prompt_tokens:
            known = cache.get_seq_length()
            kwargs |= {name: kwargs[name][:, known:] for name in ("input_ids", "position_ids")}
        is_first = False
        if isinstance(cache, DecodeCache):
            # transformers leaves the mask out where nothing is padded.
            cache.extend(kwargs["input_ids"], kwargs.get("attention_mask"), kwargs["position_ids"])
        return args, kwargs

    handle = receiver.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
