"""The common shapes of a row that holds a conversation."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.data.messages import Conversation, check_messages, from_speakers
from c2c_lightning.errors import DataError


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    r"""The conversation of a row, with or without a response at its end.

    Args:
        row: `messages` (role, content), `conversations` (from, value: ShareGPT, OpenHermes), or `instruction` with an
            optional `input` and `output` (Alpaca) or `context` and `response` (Dolly). Rows of the latter two may have
            a `system` text, and those with an `instruction` a `history` of `[question, answer]` pairs.

    Raises:
        DataError: for a row of another shape, or with malformed messages.

    Example:
        >>> conversation_of({"instruction": "Add.", "input": "1 + 1", "output": "2"})
        [{'role': 'user', 'content': 'Add.\n\n1 + 1'}, {'role': 'assistant', 'content': '2'}]
    """
    if row.get("messages") is not None:
        return check_messages(row["messages"], DataError)
    if row.get("conversations") is not None:
        return check_messages(_system(row) + from_speakers(row["conversations"]), DataError)
    if row.get("instruction") is not None:
        return check_messages(_system(row) + _history(row) + _from_instruction(row), DataError)
    if "choices" in row:
        raise DataError("The row has no `messages`; it is a multiple-choice question: use the source `MultipleChoice`.")
    raise DataError(f"The row has no `messages`; it has {', '.join(f'`{name}`' for name in row) or 'nothing'}.")


def _system(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def _history(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = row.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise DataError("`history` must be a list of [question, answer] pairs.")
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def _from_instruction(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = [row["instruction"], _either(row, "input", "context") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise DataError("`instruction`, `input` and `context` must be text.")
    prompt = {"role": "user", "content": "\n\n".join(part for part in parts if part)}
    output = _either(row, "output", "response")
    return [prompt] if not output else [prompt, {"role": "assistant", "content": output}]


def _either(row: Mapping[str, Any], alpaca: str, dolly: str) -> Any:
    """The value that Alpaca and Dolly name differently, if the row has one."""
    if row.get(alpaca) and row.get(dolly):
        raise DataError(f"The row has both `{alpaca}` and `{dolly}`; keep one of them.")
    return row.get(alpaca) or row.get(dolly)
