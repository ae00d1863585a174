"""Conversations that are already conversations."""

from typing import Any

from c2c_lightning.data.messages import (
    Conversation,
    check_messages,
    from_speakers,
    sharer_messages_of,
    template_kwargs_of,
)
from c2c_lightning.data.row_shapes import conversation_of
from c2c_lightning.data.sources.source import Row, TableSource
from c2c_lightning.errors import DataError


class Messages(TableSource):
    """Rows of `{"messages": [{"role", "content"}, ...]}`; the last message is the response to learn.

    Rows in the shape of ShareGPT (`conversations`) and of Alpaca (`instruction`, `input`, `output`) are read too.

    With `"sharer_messages"` sharers read these instead (private context): say a document and the question, where the
    receiver reads only the question. With `"sharer_context"` they read this text in front of the first question.
    """

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The conversation, and the sharers' conversation if the row has one."""
        messages = conversation_of(row)
        private = sharer_messages_of(row, messages)
        return messages, None if private is None else check_messages(private, DataError)

    def chat_template_kwargs(self, row: Row) -> dict[str, Any]:
        """`tools`, `documents` and `chat_template_kwargs` of the row."""
        return template_kwargs_of(row)


class OpenHermes(Messages):
    """Rows of `{"conversations": [{"from", "value"}, ...]}`, as in OpenHermes-2.5 and ShareGPT."""

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The conversation; receiver and sharers read the same."""
        return from_speakers(row.get("conversations")), None
