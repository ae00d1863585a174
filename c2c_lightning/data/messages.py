"""Conversations: lists of messages, their checks, and the template arguments of a row of data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from c2c_lightning.alignment.content_spans import content_text
from c2c_lightning.data.prompt_template import PromptTemplate as PromptTemplate  # its path in version 0.1
from c2c_lightning.errors import C2CError, DataError, PromptError

Message = dict[str, Any]
"""`role`, `content`, and further keys that a chat template may use (`tool_calls`, `name`, `reasoning_content`, ...)."""
Conversation = list[Message]
SharerConversations = Conversation | Sequence[Conversation | None] | None
"""Private context: one conversation for all sharers, or one for each (None: the receiver's)."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

# Speakers in the `conversations` form (OpenHermes, ShareGPT).
_SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant"}
_SPEAKERS |= {role: role for role in ("system", "user", "assistant", "tool")}


def check_messages(messages: object, error: type[C2CError] = PromptError) -> Conversation:
    """Check that a value is a conversation.

    Keys with the value null are left out, but for `content`: tables give all messages the keys of any message.

    Args:
        messages: should be a list of `{"role": ..., "content": ...}`. Content may be null in a message with
            `tool_calls`.
        error: the class to raise, `PromptError` for a prompt, `DataError` for a row of a data set.

    Raises:
        C2CError: of class `error`, names the message that does not fit and how to mend it.

    Example:
        >>> check_messages([{"role": "user", "content": "Hi", "name": None}])
        [{'role': 'user', 'content': 'Hi'}]
    """
    # A text is a sequence too.
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise error(f"A conversation is a list of messages, but this is {type(messages).__name__}: {messages!r:.80}.")
    if not messages:
        raise error("A conversation needs at least one message, but this one is empty.")
    return [_checked(number, message, error) for number, message in enumerate(messages)]


def _checked(number: int, message: object, error: type[C2CError]) -> Message:
    if not isinstance(message, Mapping):
        raise error(f"Message {number} is {type(message).__name__}; it must be a mapping with `role` and `content`.")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise error(f"Message {number} has the role {role!r}; known roles are {', '.join(sorted(ROLES))}.")
    if not isinstance(content, str) and not (content is None and has_tool_calls(message)):
        raise error(f"The content of message {number} is {type(content).__name__}; it must be text.")
    try:
        content_text(message).encode()
    except UnicodeEncodeError as problem:
        raise error(
            f"The content of message {number} has a lone surrogate at character {problem.start}, which no tokenizer "
            "accepts. Decode the source as UTF-8 with `errors='replace'`."
        ) from problem
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def has_tool_calls(message: Mapping[str, Any]) -> bool:
    """Whether a message calls tools, so may have no content."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def is_empty(message: Mapping[str, Any]) -> bool:
    """Whether a message has neither text nor tool calls."""
    return not content_text(message).strip() and not has_tool_calls(message)


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether an answer is a training target: its `weight` (OpenAI's fine-tuning format) is missing or 1.

    Raises:
        DataError: for a weight other than 0 and 1.

    Example:
        >>> is_trained({"role": "assistant", "content": "4", "weight": 0})
        False
    """
    weight = message.get("weight")
    if weight is not None and weight not in (0, 1):
        raise DataError(f"The `weight` of an answer must be 0 or 1, but is {weight!r}.")
    return weight is None or bool(weight)


def check_example(messages: object) -> Conversation:
    """Check that a conversation can be trained on: a prompt, and as its last message a response that is not empty."""
    conversation = check_messages(messages, DataError)
    if len(conversation) < 2:
        raise DataError("A training example needs a prompt and a response, but it has one message only.")
    if conversation[-1]["role"] != "assistant":
        role = conversation[-1]["role"]
        raise DataError(f"The last message must be the assistant's response, but its role is {role!r}.")
    if is_empty(conversation[-1]):
        raise DataError("The response, which is the last message, is empty.")
    if not is_trained(conversation[-1]):
        raise DataError("The response, which is the last message, has the weight 0: it is not to be trained on.")
    return conversation


def per_sharer(receiver: Conversation, sharers: Any, num_sharers: int) -> list[Conversation]:
    """The conversation of each sharer, from a value as `SharerConversations`."""
    if sharers is None:
        return [receiver] * num_sharers
    if isinstance(sharers, Sequence) and sharers and isinstance(sharers[0], Mapping):
        return [check_messages(sharers)] * num_sharers
    if not isinstance(sharers, Sequence) or len(sharers) != num_sharers:
        raise PromptError(f"Give one conversation for all sharers, or one for each of the {num_sharers}.")
    return [receiver if messages is None else check_messages(messages) for messages in sharers]


def sharer_messages_of(row: Mapping[str, Any], messages: Conversation) -> Any:
    """The sharers' conversation of a row (private context), not checked yet; None where they get the receiver's.

    A row has `sharer_messages`, or `sharer_context`, a text in front of the first user message.
    """
    given, context = row.get("sharer_messages"), row.get("sharer_context")
    if context is None:
        return given
    if given is not None:
        raise DataError("The row has both `sharer_messages` and `sharer_context`; keep one of them.")
    if not isinstance(context, str):
        raise DataError(f"`sharer_context` must be text, but is {type(context).__name__}.")
    return with_context(context, messages)


def with_context(context: str, messages: Conversation) -> Conversation:
    r"""The same conversation with a text in front of its first user message.

    Example:
        >>> with_context("Ada wrote it.", [{"role": "user", "content": "Who?"}])
        [{'role': 'user', 'content': 'Ada wrote it.\n\nWho?'}]
    """
    first = next((number for number, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise DataError("`sharer_context` is put in front of a user message, but the row has none.")
    question = {**messages[first], "content": f"{context}\n\n{content_text(messages[first])}"}
    return [*messages[:first], question, *messages[first + 1 :]]


def without_response(sharers: Any) -> Any:
    """Sharers' conversations without a response at the end: sharers get the prompt only."""
    if not isinstance(sharers, Sequence) or not sharers:
        return sharers
    if not isinstance(sharers[0], Mapping):
        return [without_response(messages) for messages in sharers]
    last = sharers[-1]
    return sharers[:-1] if isinstance(last, Mapping) and last.get("role") == "assistant" else sharers


def template_kwargs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template arguments of a row of data: `tools`, `documents` and everything in `chat_template_kwargs`.

    Each of them may be JSON text, as in tables whose columns have one type.

    Example:
        >>> template_kwargs_of({"tools": '[{"name": "add"}]', "chat_template_kwargs": {"enable_thinking": True}})
        {'enable_thinking': True, 'tools': [{'name': 'add'}]}
    """
    kwargs = _json_column(row, "chat_template_kwargs", dict) or {}
    lists = {name: _json_column(row, name, list) for name in ("tools", "documents")}
    return {name: value for name, value in {**kwargs, **lists}.items() if value is not None}


def _json_column(row: Mapping[str, Any], name: str, kind: type) -> Any:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as problem:
            raise DataError(f"`{name}` is text that is not JSON: {problem}.") from problem
    if value is not None and not isinstance(value, kind):
        raise DataError(f"`{name}` must be a {kind.__name__}, but is {type(value).__name__}.")
    return value


def from_speakers(turns: object) -> Conversation:
    """Messages from the `conversations` form of OpenHermes and ShareGPT; further keys of turns are kept.

    Example:
        >>> from_speakers([{"from": "human", "value": "Hi"}])
        [{'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(turns, str | Mapping) or not isinstance(turns, Sequence):
        raise DataError(f"`conversations` must be a list of turns, but is {type(turns).__name__}.")
    return check_messages([_from_turn(number, turn) for number, turn in enumerate(turns)], DataError)


def _from_turn(number: int, turn: Any) -> Message:
    if not isinstance(turn, Mapping) or "from" not in turn or "value" not in turn:
        raise DataError(f"Turn {number} of `conversations` must have `from` and `value`.")
    role = _SPEAKERS.get(str(turn["from"]).lower())
    if role is None:
        raise DataError(f"Turn {number} is from {turn['from']!r}; known speakers are {', '.join(sorted(_SPEAKERS))}.")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    return {"role": role, "content": turn["value"], **rest}
