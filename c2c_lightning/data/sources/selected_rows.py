"""Rows that some models answer right and others wrong, by the predictions of an evaluation."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.readers.files import Table, read_rows
from c2c_lightning.data.sources.chat import Messages
from c2c_lightning.data.sources.source import Row, Source, UnusedRowError, class_code
from c2c_lightning.errors import DataError


class SelectedRows(Source):
    """The rows of a source that all responders in `right` answer right, and all in `wrong` answer wrong.

    With the defaults these are the questions in which a sharer can help: it knows the answer, the receiver does not.
    `Mixture` gives them more weight than other rows. Rows are found by their `id`.

    Args:
        source: the rows, each with an `id`.
        predictions: `predictions.jsonl` of `lightning test` on the same rows.
        right: names of responders, as in the report.
        wrong: likewise.
    """

    def __init__(
        self,
        source: Source | Messages,  # a union: shell completion lists a plain `Source` within itself without end
        predictions: str,
        right: Sequence[str] = ("sharer",),
        wrong: Sequence[str] = ("receiver",),
    ) -> None:
        self.source, self.predictions, self.right, self.wrong = source, predictions, list(right), list(wrong)
        self._answers: dict[str, dict[str, bool]] | None = None
        self.streaming = bool(getattr(source, "streaming", False))

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"SelectedRows({self.source.name})"

    def load(self) -> Table:
        """All rows of the source; `messages` leaves some of them out."""
        return self.source.load()

    def check(self) -> None:
        """Check the source, and that the predictions can be read.

        Raises:
            DataError: no predictions, or none of a responder.
        """
        self.source.check()
        answers = self.answers()
        for who in (*self.right, *self.wrong):
            if not any(who in row for row in answers.values()):
                known = sorted({name for row in answers.values() for name in row})
                raise DataError(f"`{self.predictions}` has no answers of {who!r}; it has those of {', '.join(known)}.")

    def fingerprint(self) -> str:
        """A key of the source and of the selection."""
        parts = [class_code(type(self)), self.source.fingerprint(), self.right, self.wrong, self.answers()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """As the source's, for a row of the selection."""
        if row.get("id") is None:
            raise DataError("The row has no `id`, by which its predictions are found.")
        answers = self.answers().get(str(row["id"]), {})
        if not {*self.right, *self.wrong} <= set(answers):
            raise UnusedRowError("without predictions", "The row was not answered in the evaluation.")
        if not all(answers[who] for who in self.right) or any(answers[who] for who in self.wrong):
            raise UnusedRowError("not in the selection", "The row is answered otherwise.")
        return self.source.messages(row)

    def chat_template_kwargs(self, row: Row) -> dict[str, Any]:
        """As the source's."""
        return self.source.chat_template_kwargs(row)

    def answers(self) -> dict[str, dict[str, bool]]:
        """For each row by its `id` and each responder, whether it answered right; in all runs where there are several.

        Raises:
            DataError: no predictions.
        """
        if self._answers is None:
            self._answers = _read_answers(self.predictions)
        return self._answers


def _read_answers(path: str) -> dict[str, dict[str, bool]]:
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for origin, row in read_rows(path, streaming=True):
        if not {"id", "responder", "correct"} <= set(row):
            raise DataError(f"{origin} is no prediction of `lightning test`: it needs `id`, `responder` and `correct`.")
        earlier = found[str(row["id"])].get(row["responder"], True)
        found[str(row["id"])][row["responder"]] = bool(row["correct"]) and earlier
    return dict(found)
