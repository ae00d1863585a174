"""Turns a row of a source into an encoded example, or into the reason why it is none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from c2c_lightning.alignment.content_spans import content_text
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import EncodedExample, Encoder
from c2c_lightning.data.messages import Conversation, check_example, is_empty, is_trained
from c2c_lightning.data.readers.json_lines import ORIGIN, TooLargeError, decode
from c2c_lightning.data.sources.source import Source, UnusedRowError
from c2c_lightning.errors import C2CError, DataError

MALFORMED = "malformed"
TOO_LARGE = "too large"
NO_RESPONSE = "empty response"
UNTRAINED = "response of weight 0"

BAD_KINDS = (MALFORMED, TOO_LARGE, NO_RESPONSE)
"""Faults of a row. A response of weight 0, a row above `max_length` and an unused row are no faults."""


@dataclass(frozen=True)
class Rejected:
    """A row that is no training example: one of `BAD_KINDS`, `UNTRAINED` or a source's reason, and why in words.

    `origin` is `FILE:LINE`, or the source's name and the row's number, here and below.
    """

    kind: str
    why: str
    origin: str


@dataclass(frozen=True)
class Accepted:
    """A row that is a training example, with the `prompt_key` of its prompt."""

    example: EncodedExample
    key: int
    origin: str


@dataclass(frozen=True)
class ParsedRow:
    """A row that is parsed and checked, but not encoded; the last message is the response.

    `sharer_messages` are those of private context, None for the receiver's.
    """

    messages: Conversation
    sharer_messages: Conversation | None
    key: int
    origin: str
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowEncoder:
    """Parses and encodes the rows of one source for one receiver and its sharers."""

    source: Source
    encoder: Encoder

    def __call__(self, rows: Sequence[Mapping[str, Any]], first: int) -> list[Accepted | Rejected]:
        """Parse and encode rows as the source loads them, numbered from `first`, with one tokenizer call per model."""
        parsed = [self.parse(row, number) for number, row in enumerate(rows, first)]
        encoded = iter(self.encode([item for item in parsed if isinstance(item, ParsedRow)]))
        return [item if isinstance(item, Rejected) else next(encoded) for item in parsed]

    def parse(self, row: Mapping[str, Any], number: int) -> ParsedRow | Rejected:
        """Parse and check a row as the source loads it, without encoding it; its number counts from 0."""
        origin = row.get(ORIGIN) or f"{self.source.name} row {number}"
        try:
            columns = decode(row)
            messages, sharer_messages = self.source.messages(columns)
            kwargs = self.source.chat_template_kwargs(columns)
            _refuse_nul([*messages, *(sharer_messages or [])])
            if messages and messages[-1]["role"] == "assistant":
                if not is_trained(messages[-1]):
                    return Rejected(UNTRAINED, "The response has the weight 0.", origin)
                if is_empty(messages[-1]):
                    return Rejected(NO_RESPONSE, "The response is empty.", origin)
            return ParsedRow(
                check_example(messages), sharer_messages, prompt_key(messages, sharer_messages), origin, kwargs
            )
        except TooLargeError as problem:
            return Rejected(TOO_LARGE, str(problem), origin)
        except UnusedRowError as problem:
            return Rejected(problem.reason, str(problem), origin)
        except (C2CError, LookupError, TypeError, ValueError, AttributeError) as problem:
            # Sources of users may fail on a row in any of these ways.
            return Rejected(MALFORMED, f"{problem}" if isinstance(problem, C2CError) else repr(problem), origin)

    def encode(self, rows: Sequence[ParsedRow]) -> list[Accepted | Rejected]:
        """Encode parsed rows, with one tokenizer call per model; a chat template may refuse some."""
        if not rows:
            return []
        try:
            examples = self.encoder.encode_examples(
                [row.messages for row in rows],
                [row.sharer_messages for row in rows],
                [row.chat_template_kwargs for row in rows],
            )
        except C2CError as problem:  # at least one row does not fit: bisect
            if len(rows) == 1:
                return [Rejected(MALFORMED, str(problem), rows[0].origin)]
            half = len(rows) // 2
            return self.encode(rows[:half]) + self.encode(rows[half:])
        return [Accepted(example, row.key, row.origin) for row, example in zip(rows, examples, strict=True)]


def prompt_key(messages: Conversation, sharer_messages: Conversation | None = None) -> int:
    """Hash of a prompt without its response, by which equal questions stay in one split.

    Uniform over 0 ... 2**63 - 1; independent of case and white space.
    """
    asked = [content_text(message) for message in (*messages[:-1], *(sharer_messages or []))]
    folded = " ".join(" ".join(asked).casefold().split())
    # 63 bits: a signed integer holds them.
    return int.from_bytes(blake2b(folded.encode(), digest_size=8).digest()) >> 1


def _refuse_nul(messages: Conversation) -> None:
    """Refuse NUL bytes: tokenizers accept them, but they are a sign of a damaged file."""
    for number, message in enumerate(messages):
        if "\x00" in content_text(message):
            raise DataError(f"The content of message {number} has NUL bytes.")


def training_batches(source: Source, encoder: Encoder, max_rows: int, batch_size: int) -> list[TrainingBatch]:
    """Batches of the first rows of a source, in their order; rows that cannot be read are left out.

    Raises:
        DataError: no row can be read.
    """
    reader = RowEncoder(source, encoder)
    parsed = (reader.parse(row, number) for number, row in enumerate(source.load()))
    rows = list(islice((row for row in parsed if isinstance(row, ParsedRow)), max_rows))
    examples = [item.example for item in reader.encode(rows) if isinstance(item, Accepted)]
    if not examples:
        raise DataError(f"{source.name} has no rows that can be read.")
    ids = encoder.receiver_pad_id, encoder.sharer_pad_ids
    return [collate_examples(examples[n : n + batch_size], *ids) for n in range(0, len(examples), batch_size)]


Prompt = tuple[Conversation, Conversation | None]
"""The receiver's conversation without the response, and that of the sharers, None where it is the same."""


def prompts_of(source: Source, encoder: Encoder) -> Iterator[Prompt]:
    """The prompts of a source's rows, without their responses; rows that cannot be read are left out."""
    for prompt, _ in _prompts_and_rows(source, encoder):
        yield prompt


def prompts_by(source: Source, encoder: Encoder, column: str, max_rows: int) -> dict[str, list[Prompt]]:
    """The first prompts of a source by the value of a column, such as `subject`, in the order of first appearance.

    Raises:
        DataError: rows without the column.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt, columns in islice(_prompts_and_rows(source, encoder), max_rows):
        if column not in columns:
            raise DataError(f"{source.name} has a row without the column {column!r}; it has {', '.join(columns)}.")
        groups.setdefault(str(columns[column]), []).append(prompt)
    return groups


def _prompts_and_rows(source: Source, encoder: Encoder) -> Iterator[tuple[Prompt, Mapping[str, Any]]]:
    """The prompts with the columns of their rows."""
    reader = RowEncoder(source, encoder)
    for number, row in enumerate(source.load()):
        parsed = reader.parse(row, number)
        if isinstance(parsed, ParsedRow):
            yield (parsed.messages[:-1], parsed.sharer_messages), decode(row)
