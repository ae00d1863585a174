"""Texts that only sharers read, whose beginning the receiver continues."""

from random import Random
from typing import Any

from c2c_lightning.alignment.content_spans import content_text
from c2c_lightning.data.row_shapes import conversation_of
from c2c_lightning.data.sources.private_text import PrivateText, PrivateTextSource
from c2c_lightning.data.sources.source import Row, UnusedRowError, text
from c2c_lightning.errors import DataError

# Of a text of several pages, this many words are read at most.
_MAX_WORDS = 120


class ContinuedTexts(PrivateTextSource):
    """Sharers read a text and then its beginning again; the receiver reads the beginning and continues it.

    Any texts become training rows for private documents: the continuation is in the sharers' text, word for word, and
    the receiver can only guess it. Texts are cut at white space. The lengths of a row are drawn from ranges with a
    seed that depends on the text, so they are the same in every epoch, order and process.

    Args:
        path: see `TableSource`.
        text_column: the text; default `text`, `document` or, of rows with a conversation, the contents of its messages.
        max_words: of a longer text, sharers read this many words, from a place that is drawn.
        beginning_words: fewest and most words that are read again.
        continuation_words: fewest and most words of the response. Texts too short for the fewest words of both are not
            used, and counted.
        question: wording of the receiver's prompt, with `{beginning}`.
        seed: of the lengths and places.
        shots: see `PrivateTextSource`; also `examples`.
        examples: the file of the worked examples.
        **table: see `TableSource`.
    """

    def __init__(
        self,
        path: str,
        text_column: str | None = None,
        max_words: int = _MAX_WORDS,
        beginning_words: tuple[int, int] = (4, 16),
        continuation_words: tuple[int, int] = (1, 12),
        question: str = "Continue the text: {beginning}",
        seed: int = 0,
        shots: int = 0,
        examples: str | None = None,
        **table: Any,
    ) -> None:
        super().__init__(path, shots, examples, **table)
        self.text_column, self.seed, self.max_words = text_column, seed, max_words
        self.beginning_words = _checked_range("beginning_words", beginning_words)
        self.continuation_words = _checked_range("continuation_words", continuation_words)
        self.fewest = self.beginning_words[0] + self.continuation_words[0]
        if max_words < self.fewest:
            raise DataError(
                f"`max_words` of ContinuedTexts is {max_words}, but beginning and continuation have at least "
                f"{self.fewest}. Raise it."
            )
        if "{beginning}" not in question:
            raise DataError("The wording `question` of ContinuedTexts needs {beginning}.")
        self.question = question

    def private_text(self, row: Row) -> PrivateText:
        """The text, its beginning in the wording, and the continuation."""
        words = self._text(row).split()
        if len(words) < self.fewest:
            raise UnusedRowError(
                "text too short", f"The text has {len(words)} words, but at least {self.fewest} are needed."
            )
        draw = Random(f"{self.seed} {' '.join(words)}")
        start = draw.randint(0, max(0, len(words) - self.max_words))
        words = words[start : start + self.max_words]
        begin = _drawn(draw, self.beginning_words, len(words) - self.continuation_words[0])
        end = begin + _drawn(draw, self.continuation_words, len(words) - begin)
        beginning, continuation = " ".join(words[:begin]), " ".join(words[begin:end])
        # Not str.format: the text may hold braces.
        return PrivateText(" ".join(words), self.question.replace("{beginning}", beginning), continuation)

    def _text(self, row: Row) -> str:
        if self.text_column is not None:
            return text(row, self.text_column)
        for column in ("text", "document"):
            if column in row:
                return text(row, column)
        return "\n\n".join(content_text(message) for message in conversation_of(row))


def _checked_range(name: str, words: tuple[int, int]) -> tuple[int, int]:
    fewest, most = words
    if not 1 <= fewest <= most:
        raise DataError(f"`{name}` of ContinuedTexts must be [fewest, most] with 1 <= fewest <= most, but is {words}.")
    return fewest, most


def _drawn(draw: Random, words: tuple[int, int], limit: int) -> int:
    """A number of words from a range, no more than `limit`."""
    return draw.randint(words[0], min(words[1], limit))
