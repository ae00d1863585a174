"""Conversations: lists of messages, what makes one valid, and plain-text templates for base models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2c_lightning.errors import C2CError, DataError, PromptError

Message = dict[str, str]
Conversation = list[Message]
# What sharers are told instead: one conversation for all of them, or one for each (None: the receiver's).
Private = Conversation | Sequence[Conversation | None] | None

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

# Speakers as data sets in the `conversations` form (OpenHermes, ShareGPT) name them.
_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
}


def check_messages(messages: object, error: type[C2CError] = PromptError) -> Conversation:
    """Make sure that something is a conversation that a tokenizer can read.

    Args:
        messages: what should be a list of `{"role": ..., "content": ...}`.
        error: the class to raise, `PromptError` for a question, `DataError` for a row of a data set.

    Returns:
        The same messages.

    Raises:
        C2CError: of class `error`, naming the message that does not fit and how to mend it.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise error(f"A conversation is a list of messages, but this is {type(messages).__name__}: {messages!r:.80}.")
    if not messages:
        raise error("A conversation needs at least one message, but this one is empty.")
    for number, message in enumerate(messages):
        _check_message(number, message, error)
    return list(messages)


def _check_message(number: int, message: object, error: type[C2CError]) -> None:
    if not isinstance(message, Mapping):
        raise error(f"Message {number} is {type(message).__name__}; it must be a mapping with `role` and `content`.")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise error(f"Message {number} has the role {role!r}; known roles are {', '.join(sorted(ROLES))}.")
    if not isinstance(content, str):
        raise error(f"The content of message {number} is {type(content).__name__}; it must be text.")
    try:
        content.encode()
    except UnicodeEncodeError as problem:
        raise error(
            f"The content of message {number} holds a lone surrogate at character {problem.start}, which no tokenizer "
            "can read. Decode the source as UTF-8 with `errors='replace'`."
        ) from problem


def check_example(messages: object) -> Conversation:
    """Make sure that something can be trained on: a prompt, and a response that is not empty.

    Args:
        messages: the conversation; its last message is the response.

    Returns:
        The same messages.

    Raises:
        DataError: naming what does not fit.
    """
    conversation = check_messages(messages, DataError)
    if len(conversation) < 2:
        raise DataError("A training example needs a prompt and a response, but it has one message only.")
    if conversation[-1]["role"] != "assistant":
        role = conversation[-1]["role"]
        raise DataError(f"The last message must be the assistant's response, but its role is {role!r}.")
    if not conversation[-1]["content"].strip():
        raise DataError("The response, which is the last message, is empty.")
    return conversation


def per_sharer(own: Conversation, private: Any, num_sharers: int) -> list[Conversation]:
    """What each sharer is told.

    Args:
        own: what the receiver is told.
        private: what sharers are told instead, see `Private`.
        num_sharers: how many there are.

    Returns:
        One conversation for each.

    Raises:
        PromptError: for what is no conversation, or too many or few of them.
    """
    if private is None:
        return [own] * num_sharers
    if isinstance(private, Sequence) and private and isinstance(private[0], Mapping):
        return [check_messages(private)] * num_sharers
    if not isinstance(private, Sequence) or len(private) != num_sharers:
        raise PromptError(f"Give one conversation for all sharers, or one for each of the {num_sharers}.")
    return [own if told is None else check_messages(told) for told in private]


def told_to_sharers(row: Mapping[str, Any], messages: Conversation) -> Any:
    """What a row of data lets sharers read instead of its messages (private context).

    Args:
        row: with `sharer_messages`, or with a `sharer_context`, a text that stands in front of the first question.
        messages: what the receiver reads, with or without a response.

    Returns:
        Messages that nobody has checked yet; None when sharers read the same.

    Raises:
        DataError: for a context that is no text, or beside `sharer_messages`.
    """
    own, context = row.get("sharer_messages"), row.get("sharer_context")
    if context is None:
        return own
    if own is not None:
        raise DataError("The row has both `sharer_messages` and `sharer_context`; keep one of them.")
    if not isinstance(context, str):
        raise DataError(f"`sharer_context` must be text, but is {type(context).__name__}.")
    return after_context(context, messages)


def after_context(context: str, messages: Conversation) -> Conversation:
    """The same conversation with a text in front of its first question."""
    place = next((number for number, message in enumerate(messages) if message["role"] == "user"), None)
    if place is None:
        raise DataError("`sharer_context` stands in front of a question, but no message is the user's.")
    asked = {**messages[place], "content": f"{context}\n\n{messages[place]['content']}"}
    return [*messages[:place], asked, *messages[place + 1 :]]


def without_response(private: Any) -> Any:
    """What sharers are told before the answer: they read the prompt only.

    Args:
        private: what sharers are told in an example, with or without the response.

    Returns:
        The same without responses at the end.
    """
    if not isinstance(private, Sequence) or not private:
        return private
    if not isinstance(private[0], Mapping):
        return [without_response(told) for told in private]
    last = private[-1]
    return private[:-1] if isinstance(last, Mapping) and last.get("role") == "assistant" else private


def from_speakers(turns: object) -> Conversation:
    """Messages from the `conversations` form of OpenHermes and ShareGPT.

    Args:
        turns: a list of `{"from": "human" | "gpt" | "system", "value": text}`.

    Returns:
        The same turns as `{"role", "content"}` messages.

    Raises:
        DataError: for a turn without speaker or text, or with a speaker nobody knows.
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
    return {"role": role, "content": turn["value"]}


# The text ends with the end token after a response, so that stopping is supervised as a chat template's closing is.
_QUESTION_ANSWER = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}Answer: {{ message['content'] }}{{ eos_token if loop.last else '\\n\\n' }}\
{% elif message['role'] == 'user' %}Question: {{ message['content'] }}{{ '\\n' }}\
{% else %}{{ message['content'] }}{{ '\\n\\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"""

_DIALOGUE = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token if loop.last else '\\n' }}\
{% elif message['role'] == 'user' %}User: {{ message['content'] }}{{ '\\n' }}\
{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""

_PLAIN = """\
{{ bos_token }}{% for message in messages %}\
{{ message['content'] }}{{ eos_token if loop.last and message['role'] == 'assistant' else '\\n' }}\
{% endfor %}"""

# What is asked is the beginning of a text, and the answer goes on with it.
_TEXT = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"

_NAMED = {"question_answer": _QUESTION_ANSWER, "dialogue": _DIALOGUE, "plain": _PLAIN, "text": _TEXT}


@dataclass(frozen=True)
class PromptTemplate:
    """How a model without a chat template reads a conversation: a Jinja template, as chat templates are.

    Attributes:
        name: for messages and fingerprints of people; the template's text is what counts.
        jinja: the template. It sees `messages`, `add_generation_prompt`, `bos_token` (empty for a tokenizer that
            never adds one by itself) and `eos_token`.
    """

    name: str
    jinja: str

    @classmethod
    def load(cls, name_or_path: "str | Path | PromptTemplate") -> "PromptTemplate":
        """A shipped template by name, one from a `.jinja` file, or the text of one.

        Args:
            name_or_path: `question_answer`, `dialogue`, `plain`, a path, or a Jinja template itself.

        Returns:
            The template.

        Raises:
            PromptError: when it is neither.
        """
        if isinstance(name_or_path, PromptTemplate):  # text from a fuser directory: never a name or a path
            return name_or_path
        name = str(name_or_path)
        if name in _NAMED:
            return cls(name, _NAMED[name])
        if "{{" in name:
            return cls(next((known for known, text in _NAMED.items() if text == name), "inline"), name)
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(sorted(_NAMED))
            raise PromptError(f"There is no prompt template {name!r}: name one of {known}, or a .jinja file.")
        return cls(path.stem, path.read_text(encoding="utf-8"))
