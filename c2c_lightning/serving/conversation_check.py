"""Checks the messages of a request: roles in order, text only."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.data.messages import Conversation, check_messages
from c2c_lightning.errors import PromptError

_SYSTEM = ("system", "developer")


def checked_conversation(messages: list[Any], where: str = "messages") -> Conversation:
    """A conversation whose last message is a user's; content parts of text are joined.

    Args:
        messages: as in OpenAI's API.
        where: name of the field, for messages.

    Raises:
        PromptError: names the message that does not fit.
    """
    conversation = check_messages([_with_text(n, message, where) for n, message in enumerate(messages)])
    roles = [message["role"] for message in conversation]
    for number, role in enumerate(roles):
        if role == "tool" or conversation[number].get("tool_calls") or conversation[number].get("function_call"):
            raise PromptError(f"Message {number} of `{where}` is of a tool, and tools are not supported.")
        if role in _SYSTEM and any(earlier not in _SYSTEM for earlier in roles[:number]):
            raise PromptError(f"Message {number} of `{where}` is of the system: put it in front of all others.")
    others = [role for role in roles if role not in _SYSTEM]
    if not others or others[0] != "user" or others[-1] != "user":
        raise PromptError(
            f"The first and the last message of `{where}` (system messages aside) must be the user's; the roles are "
            f"{', '.join(roles[:20])}."
        )
    # Few templates know OpenAI's newer name of system messages.
    return [{"role": _role(message["role"]), "content": message["content"]} for message in conversation]


def _role(role: str) -> str:
    return "system" if role in _SYSTEM else role


def _with_text(number: int, message: Any, where: str) -> Any:
    """A message whose content is text; other values are left to `check_messages`."""
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return message
    parts = message["content"]
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise PromptError(f"Message {number} of `{where}` has a content part of type {kind!r}; only text is read.")
    return {**message, "content": "".join(part["text"] for part in parts)}
