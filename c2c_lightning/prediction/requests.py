"""The rows of a file for `lightning predict`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from c2c_lightning import embedded
from c2c_lightning.alignment.content_spans import content_text
from c2c_lightning.data.messages import Conversation, check_messages, sharer_messages_of, template_kwargs_of
from c2c_lightning.data.readers.files import load_rows
from c2c_lightning.data.readers.json_lines import ORIGIN, decode
from c2c_lightning.data.row_shapes import conversation_of
from c2c_lightning.errors import C2CError, DataError

Line = dict[str, Any]


@dataclass(frozen=True)
class PredictionRequest:
    """One row of the file.

    Attributes:
        index: number of the row, from 0.
        origin: file and line of the row, `FILE:LINE`.
        id: the row's own `id`, else its number.
        messages: the conversation to answer.
        sharer_messages: the sharers' conversation (private context), or None for the same.
        reference: the response that the row already has, if it ends in one; no model gets it.
        chat_template_kwargs: arguments of the chat templates for this row, such as `tools`.
    """

    index: int
    origin: str
    id: Any
    messages: Conversation
    sharer_messages: Conversation | None = None
    reference: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Characters of the longer conversation, for batches of similar length."""
        sides = (self.messages, self.sharer_messages or [])
        return max(sum(len(content_text(message)) for message in side) for side in sides)

    def to_line(self, answers: Sequence[str]) -> Line:
        """The output line; several answers are listed in `answers`, and the first one is `answer` too."""
        line: Line = {"id": self.id, "messages": self.messages, "answer": answers[0]}
        if len(answers) > 1:
            line["answers"] = list(answers)
        if self.sharer_messages is not None:
            line["sharer_messages"] = self.sharer_messages
        if self.reference is not None:
            line["reference"] = self.reference
        arguments = dict(self.chat_template_kwargs)
        line |= {name: arguments.pop(name) for name in ("tools", "documents") if name in arguments}
        if arguments:
            line["chat_template_kwargs"] = arguments
        return line


def load_requests(path: str, split: str = "train", max_rows: int | None = None) -> list[PredictionRequest]:
    """The rows of a file in their order; for the arguments see `ConversationDataModule`.

    Raises:
        DataError: naming file and line of a row that does not fit, or when there are none.
    """
    requests: list[PredictionRequest] = []
    for index, row in enumerate(load_rows(embedded.resolve(path), split, streaming=True)):
        if index == max_rows:
            break
        origin = row.get(ORIGIN) or f"{path}, row {index + 1}"
        try:
            requests.append(_request(index, origin, decode(row)))
        except C2CError as problem:
            raise DataError(f"{origin}: {problem}") from problem
    if not requests:
        raise DataError(f"`{path}` has no rows to answer.")
    return requests


def _request(index: int, origin: str, row: Mapping[str, Any]) -> PredictionRequest:
    prompt, reference = _split_response(_conversation(row))
    own = sharer_messages_of(row, prompt)
    own = None if own is None else _split_response(check_messages(own, DataError))[0]
    return PredictionRequest(index, origin, row.get("id", index), prompt, own, reference, template_kwargs_of(row))


def _conversation(row: Mapping[str, Any]) -> Conversation:
    """The row's conversation; a row of a benchmark has a question only."""
    if row.get("messages") is None and isinstance(row.get("question"), str):
        return [{"role": "user", "content": row["question"]}]
    return conversation_of(row)


def _split_response(conversation: Conversation) -> tuple[Conversation, str | None]:
    """A conversation up to the message to answer, and the response that follows it."""
    if conversation[-1]["role"] != "assistant":
        return conversation, None
    if len(conversation) == 1:
        raise DataError("There is nothing to answer: the only message is the assistant's.")
    return conversation[:-1], content_text(conversation[-1])
