"""Requests of lm-evaluation-harness: contexts as plain text or messages, truncation, stop strings, batches."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import PromptError

logger = logging.getLogger(__name__)

#: Prefix of a context that contains messages instead of plain text.
_CHAT = "\x02chat\x03"

Result = TypeVar("Result")
Value = TypeVar("Value")


def chat_context(messages: Conversation) -> str:
    """Messages as a context."""
    return _CHAT + json.dumps(messages)


def is_chat(context: str) -> bool:
    """Whether a context contains messages."""
    return context.startswith(_CHAT)


def conversation_of(context: str) -> Conversation:
    """The messages of a context; plain text is one message."""
    if not is_chat(context):
        return [{"role": "user", "content": context}]
    messages: Conversation = json.loads(context.removeprefix(_CHAT))
    return messages


def adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer puts the BOS token in front of a text; the prompt template `text` does the same."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def truncated(text: str, tokenizer: Any, max_tokens: int) -> str:
    """The end of a text, of at most `max_tokens` tokens; at least one token is kept."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) <= max_tokens:
        return text
    logger.warning(
        "A context of %d tokens loses its beginning: the model reads %d before the answer", len(ids), max_tokens
    )
    offsets = None
    if tokenizer.is_fast:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for kept in range(max(max_tokens, 1), 0, -1):
        # Slow tokenizers have no offsets; decoding may then differ from the text.
        start = offsets[-kept][0] if offsets else len(text) - len(tokenizer.decode(ids[-kept:]))
        shorter = text[start:]
        # Without its left neighbour, the first word may be split into more tokens.
        if len(tokenizer.encode(shorter, add_special_tokens=False)) <= max_tokens:
            break
    return shorter


def answer_fitting(
    requests: Sequence[tuple[str, Value]], answer: Callable[[Sequence[tuple[str, Value]]], list[Result]]
) -> list[Result]:
    """Replies to requests (context, options); a context that is too long for its responder is cut until it fits.

    Chat templates and text-to-text make prompts longer than their contexts, so the length is unknown in advance.
    """
    try:
        return answer(requests)
    except PromptError as problem:
        if len(requests) > 1:
            return [reply for request in requests for reply in answer_fitting([request], answer)]
        context, value = requests[0]
        shorter = _without_eighth(context)
        if shorter is None:
            raise
        logger.warning("A context loses its beginning: %s", problem)
        return answer_fitting([(shorter, value)], answer)


def _without_eighth(context: str) -> str | None:
    """A context without an eighth of its characters, from the left; None for an empty one."""
    messages = conversation_of(context)
    num_characters = sum(len(message["content"]) for message in messages)
    if not num_characters:
        return None
    remaining, shorter = num_characters // 8 + 1, []
    for message in messages:
        dropped = min(remaining, len(message["content"]))
        remaining -= dropped
        shorter.append({**message, "content": message["content"][dropped:]})
    return chat_context(shorter) if is_chat(context) else shorter[0]["content"]


def cut(text: str, until: Iterable[str]) -> str:
    """A text up to the first stop string."""
    for stop in until:
        text = text.split(stop)[0] if stop else text
    return text
