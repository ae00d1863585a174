"""Greedy generation of a batch in which rows leave once their answers have ended.

transformers runs every row until the longest answer of the batch has ended. Here a call of `generate` stops once half
of its rows have ended, and the others go on alone: a single long answer no longer costs the passes of a whole batch.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import end_tokens, generate, new_tokens, padding, room_behind, setting

#: Arguments whose meaning does not depend on where a call of `generate` begins.
_PLAIN = {"max_new_tokens", "do_sample", "eos_token_id", "pad_token_id"}
#: Settings of a model's generation config that count from the first token of a call, or need all rows until the end.
_WHOLE_CALL = (
    "min_length",
    "min_new_tokens",
    "max_time",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "stop_strings",
    "guidance_scale",
    "watermarking_config",
    "penalty_alpha",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
)


class HalfEnded(StoppingCriteria):
    """Stops all rows once half of them have ended.

    Args:
        ends: the end tokens.
        begin: columns of the prompt.
    """

    def __init__(self, ends: Tensor, begin: int) -> None:
        self.ends, self.begin = ends, begin

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """For each row whether it stops, (batch,)."""
        is_ended = has_end(input_ids[:, self.begin :], self.ends)
        return (2 * is_ended.sum() >= len(is_ended)).expand(len(is_ended))


def generate_rows(receiver: FrozenLM, prompt: PromptBatch, cache: Cache, **kwargs: Any) -> Any:
    """As `generate`; in greedy search without further settings, rows that have ended leave the batch and its cache.

    The ids are those of `generate`, but for rounding in batches of other sizes.

    Args:
        receiver: the model that answers.
        prompt: the prompts, on the receiver's device.
        cache: the filled cache, which is used up.
        kwargs: all arguments of transformers' `generate`.
    """
    wanted, room = new_tokens(receiver, prompt, kwargs), room_behind(receiver, prompt)
    if len(prompt) == 1 or wanted < 1 or not _can_leave(receiver, kwargs):
        return generate(receiver, prompt, cache, **kwargs)
    tokens, rows = prompt.receiver, torch.arange(len(prompt))
    ends = torch.tensor(sorted(end_tokens(receiver, kwargs)), device=tokens.input_ids.device)
    parts: list[tuple[Tensor, Tensor]] = []
    while True:
        begin = tokens.input_ids.shape[1]
        call = {**kwargs, "max_new_tokens": wanted, "stopping_criteria": [HalfEnded(ends, begin)]}
        ids = generate(receiver, PromptBatch(tokens, ()), cache, **call)
        parts.append((rows, ids))
        going = (~has_end(ids[:, begin:], ends)).nonzero()[:, 0]
        # The first call warns where the context has room for fewer tokens than wanted.
        wanted = (wanted if room is None else min(wanted, room)) - (ids.shape[1] - begin)
        room = None
        if not len(going) or wanted < 1:
            return _joined(parts, padding(receiver, kwargs))
        tokens = tokens.append(TokenBatch(ids[:, begin:])).rows(going.cpu())
        cache.reorder_cache(going)  # type: ignore[arg-type]
        rows = rows[going.cpu()]


def has_end(ids: Tensor, ends: Tensor) -> Tensor:
    """Whether each row has an end token, (batch,)."""
    return torch.isin(ids, ends).any(1)


def _can_leave(receiver: FrozenLM, kwargs: dict[str, Any]) -> bool:
    """Whether several calls of `generate` give what one gives, and end before their limit."""
    if kwargs.get("eos_token_id", ()) is None:  # the call has no end token, even if the model has one
        return False
    given = {name for name, value in kwargs.items() if value is not None}
    counts = [setting(receiver, kwargs, name) for name in ("num_beams", "num_return_sequences")]
    return (
        given <= _PLAIN
        and not receiver.is_sharded  # processes have to make equally many passes
        and not setting(receiver, kwargs, "do_sample")
        and all(count in (None, 1) for count in counts)
        and not any(setting(receiver, kwargs, name) for name in _WHOLE_CALL)
        and bool(end_tokens(receiver, kwargs))
    )


def _joined(parts: list[tuple[Tensor, Tensor]], pad: int) -> Tensor:
    """The ids of all rows, (batch, prompt + new): each part has fewer rows and more columns than that before."""
    (rows, first), (_, last) = parts[0], parts[-1]
    ids = first.new_full((len(rows), last.shape[1]), pad)
    for index, part in parts:
        ids[index, : part.shape[1]] = part
    return ids
