"""A question and its answer in columns."""

from typing import Any

from c2c_lightning.data.messages import Conversation, with_context
from c2c_lightning.data.sources.source import Row, TableSource, text
from c2c_lightning.errors import DataError


class PromptResponse(TableSource):
    """Rows with the prompt in one column and the response in another.

    Args:
        path: see `TableSource`, as all further arguments.
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
        prompt, response = text(row, self.prompt), text(row, self.response)
        own = None if self.context is None else with_context(text(row, self.context), [_user(prompt)])
        return [_user(prompt), _assistant(response)], own


class GSM8K(TableSource):
    """Rows of `{"question", "answer"}` whose answer is worked out and ends in `#### 42`."""

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The question; the solution, calculator marks (`<<1+1=2>>`) left out."""
        pieces = text(row, "answer").split("<<")
        answer = pieces[0] + "".join(piece.split(">>", 1)[-1] for piece in pieces[1:])
        return [_user(text(row, "question")), _assistant(answer)], None


# Wording of LongBench's single-document questions; tasks with other needs have a `template` of their own.
LONG_CONTEXT = "Read the following text and answer the question.\n\n{context}\n\nQuestion: {input}\nAnswer:"


class LongBench(TableSource):
    """Rows of `{"context", "input", "answers"}`; the first answer is the response (paper A.3.5).

    Args:
        path: see `TableSource`, as all further arguments.
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
        response = _assistant(answers[0])
        if self.private_context:
            return [_user(question), response], [_user(worded)]
        return [_user(worded), response], None


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}
