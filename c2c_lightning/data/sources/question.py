"""A question and its answer in columns."""

from typing import Any

from c2c_lightning.data.messages import Conversation, with_context
from c2c_lightning.data.sources.source import Row, TableSource, exchange, text
from c2c_lightning.errors import DataError


class PromptResponse(TableSource):
    """Rows with the prompt in one column and the response in another.

    Args:
        path: see `TableSource`.
        prompt: the prompt's column.
        response: the response's column.
        context: a column with a text that only sharers read, in front of the prompt.
        **table: see `TableSource`.
    """

    def __init__(
        self,
        path: str,
        prompt: str = "prompt",
        response: str = "response",
        context: str | None = None,
        **table: Any,
    ) -> None:
        super().__init__(path, **table)
        self.prompt = prompt
        self.response = response
        self.context = context

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """One question, one answer."""
        messages = exchange(text(row, self.prompt), text(row, self.response))
        return messages, None if self.context is None else with_context(text(row, self.context), messages[:1])


class GSM8K(TableSource):
    """Rows of `{"question", "answer"}` whose answer is worked out and ends in `#### 42`."""

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The question; the solution, calculator marks (`<<1+1=2>>`) left out."""
        pieces = text(row, "answer").split("<<")
        answer = pieces[0] + "".join(piece.split(">>", 1)[-1] for piece in pieces[1:])
        return exchange(text(row, "question"), answer), None


# Wording of LongBench's single-document questions; for other tasks set `template`.
LONG_CONTEXT = "Read the following text and answer the question.\n\n{context}\n\nQuestion: {input}\nAnswer:"


class LongBench(TableSource):
    """Rows of `{"context", "input", "answers"}`; the first answer is the response (paper A.3.5).

    Args:
        path: see `TableSource`.
        template: wording, with `{context}` and `{input}`.
        private_context: True lets only sharers read the context.
        **table: see `TableSource`.
    """

    def __init__(self, path: str, template: str = LONG_CONTEXT, private_context: bool = False, **table: Any) -> None:
        super().__init__(path, **table)
        if "{context}" not in template or "{input}" not in template:
            raise DataError("The template of LongBench needs both {context} and {input}.")
        self.template = template
        self.private_context = private_context

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The text with the question; its first answer."""
        answers = row.get("answers")
        if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
            raise DataError("`answers` must be a list of texts that is not empty.")
        # Not str.format: a text may hold braces.
        question = text(row, "input")
        worded = self.template.replace("{input}", question).replace("{context}", text(row, "context"))
        if self.private_context:
            return exchange(question, answers[0]), exchange(worded, answers[0])[:1]
        return exchange(worded, answers[0]), None
