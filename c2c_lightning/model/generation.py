"""Generation from a filled cache with transformers' own `generate`."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.kv.cache import CACHE_ARGUMENT
from c2c_lightning.model.decode_cache import DecodeCache
from c2c_lightning.model.frozen_lm import FrozenLM

logger = logging.getLogger(__name__)

#: New tokens that transformers generates where no setting limits them.
DEFAULT_NEW_TOKENS = 20

REFUSED = {
    "use_mtp": "drafting heads need the receiver's hidden states over the whole prompt",
    "speculation_type": "a drafter that reads the receiver's hidden states needs them over the whole prompt",
    "cache_implementation": "generation continues from the fused cache",
    "cache": "generation continues from the fused cache; a fused prompt to reuse is given as `prefix`",
    "past_key_values": "generation continues from the fused cache; a fused prompt to reuse is given as `prefix`",
    "attention_mask": "it belongs to the prompt: set `TokenBatch.attention_mask`",
    "position_ids": "they belong to the prompt: set `TokenBatch.position_ids`",
    "input_ids": "they belong to the prompt",
    "inputs": "they belong to the prompt",
    "inputs_embeds": "the prompt consists of token ids",
}
"""Arguments of `generate` that cannot be followed on a fused cache, and why."""


def generate(receiver: FrozenLM, prompt: PromptBatch, cache: Cache, **kwargs: Any) -> Any:
    """Generate from a cache that holds all prompt tokens but the last.

    Penalties, n-gram bans, prompt lookup and assistants see the ids of the whole prompt.

    Args:
        receiver: the model that answers.
        prompt: the prompts, on the receiver's device.
        cache: the filled cache, which grows.
        kwargs: all arguments of transformers' `generate`.

    Returns:
        (batch, prompt + new) ids, or a `ModelOutput` with `return_dict_in_generate`.

    Raises:
        GenerationError: an argument that would silently give wrong tokens, or that transformers refuses.
    """
    refuse_arguments(kwargs)
    _refuse_candidates(receiver, kwargs)
    if _given(kwargs, "stop_strings") is not None:
        kwargs.setdefault("tokenizer", receiver.tokenizer)  # transformers compares text
    tokens, kwargs = prompt.receiver, _with_defaults(receiver, prompt, kwargs)
    if expansion := _expansion(receiver, kwargs):
        # transformers repeats the ids for beams and several sequences, but not a cache that it is given.
        cache.batch_repeat_interleave(expansion)
    kwargs |= {"attention_mask": tokens.mask, "position_ids": tokens.positions, CACHE_ARGUMENT: cache}
    inputs = _cache_inputs(receiver, cache, prompt.num_receiver_tokens)
    with receiver.lock, inputs, _growing_cache(receiver.model.generation_config):
        return receiver.model.generate(tokens.input_ids, **kwargs)


def refuse_arguments(kwargs: dict[str, Any]) -> None:
    """Refuse arguments that cannot be followed on a fused cache."""
    for name, reason in REFUSED.items():
        if _given(kwargs, name) is not None and _given(kwargs, name) is not False:
            raise GenerationError(f"`{name}` is not possible on a fused cache: {reason}. Leave it out.")
    # A generation config has `use_cache` from its model, where it is for plain generation (MPT's is False).
    if kwargs.get("use_cache") is False:
        raise GenerationError("Generation continues from a cache: `use_cache` must not be False.")


def _refuse_candidates(receiver: FrozenLM, kwargs: dict[str, Any]) -> None:
    """Refuse candidate tokens for a hybrid: rejected ones would have to be removed from its states."""
    if receiver.layout is None:
        return
    for name in ("assistant_model", "prompt_lookup_num_tokens"):
        if _given(kwargs, name) is not None:
            raise GenerationError(
                f"`{name}` is not possible with {receiver.spec.path}: its recurrent and convolution states cannot be "
                "rolled back to before a rejected token. Leave it out."
            )


def _with_defaults(receiver: FrozenLM, prompt: PromptBatch, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with a padding token, and with an answer that fits into the model's context."""
    settings: dict[str, Any] = {}
    if getattr(kwargs.get("generation_config"), "use_cache", None) is False:
        settings["use_cache"] = True
    if setting(receiver, kwargs, "pad_token_id") is None:
        settings["pad_token_id"] = pad_id(receiver)
    wanted, room = new_tokens(receiver, prompt, kwargs), room_behind(receiver, prompt)
    if room is not None and wanted > room:
        logger.warning(
            "At most %d instead of %d new tokens: prompt and answer must fit into the context of %s (%d tokens).",
            room, wanted, receiver.spec.path, receiver.max_tokens,
        )  # fmt: skip
        settings["max_new_tokens"] = room
    if kwargs.get("generation_config") is None:
        return {**kwargs, **settings}
    # transformers takes settings from one place only: from a generation config where there is one.
    config = deepcopy(kwargs["generation_config"])
    config.update(**settings)
    rest = {name: value for name, value in kwargs.items() if name != "max_new_tokens" or name not in settings}
    return {**rest, "generation_config": config}


def new_tokens(receiver: FrozenLM, prompt: PromptBatch, kwargs: dict[str, Any]) -> int:
    """The largest number of new tokens that the arguments allow."""
    wanted = setting(receiver, kwargs, "max_new_tokens")
    if wanted is None:
        # `max_length` counts the columns of the prompt, padding included.
        wanted = int(setting(receiver, kwargs, "max_length") or 0) - prompt.num_receiver_tokens
        return wanted if wanted > 0 else DEFAULT_NEW_TOKENS
    return int(wanted)


def room_behind(receiver: FrozenLM, prompt: PromptBatch) -> int | None:
    """New tokens for which there is room behind the longest prompt; None where the context has no limit."""
    # The last token is generated, but never processed: it needs no position.
    limit = receiver.max_tokens
    return None if limit is None else limit - int(prompt.receiver.on_host.positions.max())


def setting(receiver: FrozenLM, kwargs: dict[str, Any], name: str) -> Any:
    """A generation setting: from the call, else its generation config, else the model's."""
    given = _given(kwargs, name)
    return getattr(receiver.model.generation_config, name, None) if given is None else given


def _given(kwargs: dict[str, Any], name: str) -> Any:
    """A generation setting of the call or of its generation config."""
    if kwargs.get(name) is not None:
        return kwargs[name]
    return getattr(kwargs.get("generation_config"), name, None)


def end_tokens(receiver: FrozenLM, kwargs: dict[str, Any] | None = None) -> set[int]:
    """The tokens that end an answer: those of the call, else those of the model."""
    end = setting(receiver, kwargs or {}, "eos_token_id")
    return set() if end is None else {end} if isinstance(end, int) else set(map(int, end))


def padding(receiver: FrozenLM, kwargs: dict[str, Any] | None = None) -> int:
    """The token that follows ended answers: that of the call or of the model, else that of its tokenizer."""
    pad = setting(receiver, kwargs or {}, "pad_token_id")
    return pad_id(receiver) if pad is None else int(pad)


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
def _growing_cache(config: Any) -> Iterator[None]:
    """Within it, a model's generation config asks for the use of the cache that is given.

    Its own choice of another kind of cache, or of none, is for plain generation. transformers falls back to it wherever
    a call leaves a setting out, so that it cannot be overridden by an argument.
    """
    if config.cache_implementation is None and config.use_cache:  # also where another thread has set it
        yield
        return
    own = config.cache_implementation, config.use_cache
    config.cache_implementation, config.use_cache = None, True
    try:
        yield
    finally:
        config.cache_implementation, config.use_cache = own


@contextmanager
def _cache_inputs(receiver: FrozenLM, cache: Cache, num_prompt_tokens: int) -> Iterator[None]:
    """Within it, the receiver's passes over `cache` get the tokens that the cache lacks, and no others.

    Assisted decoding begins with the whole prompt even where the cache holds it already, and would append it again.
    The Phi-3 family drops its cache once the text is longer than `original_max_position_embeddings`, to recompute it
    with another rotary table: a fused cache cannot be recomputed, and with equal tables it need not be. A `DecodeCache`
    needs the tokens of each pass. Passes of other threads, which take turns with this one, are not touched.
    """
    is_first, thread = True, threading.get_ident()

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        nonlocal is_first
        if threading.get_ident() != thread:
            return None
        is_dropped = kwargs.get(CACHE_ARGUMENT) is None and receiver.limits.drops_cache
        if kwargs.get(CACHE_ARGUMENT) is not cache and not is_dropped:  # an assistant may be the same model
            return None
        if is_dropped or (is_first and kwargs["input_ids"].shape[1] >= num_prompt_tokens):
            known = cache.get_seq_length()
            kwargs |= {name: kwargs[name][:, known:] for name in ("input_ids", "position_ids")}
            kwargs[CACHE_ARGUMENT] = cache
        is_first = False
        if isinstance(cache, DecodeCache):
            # transformers leaves the mask out where nothing is padded.
            cache.extend(kwargs["input_ids"], kwargs.get("attention_mask"), kwargs["position_ids"])
        return args, kwargs

    handle = receiver.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
