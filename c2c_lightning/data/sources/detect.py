"""The source that fits the columns of a data set."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

from c2c_lightning.data.readers.json_lines import decode
from c2c_lightning.data.sources.chat import Messages
from c2c_lightning.data.sources.choice import MultipleChoice
from c2c_lightning.data.sources.question import LongBench, PromptResponse
from c2c_lightning.data.sources.source import TableSource
from c2c_lightning.errors import C2CError, DataError

#: Columns of a prompt and of its response.
PAIRS = (("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("input", "output"))
#: Rows that are looked at: the first may be broken, or lack an optional column.
_ROWS = 20


@dataclass(frozen=True)
class SourceChoice:
    """A source with its arguments, as in YAML.

    Attributes:
        kind: its class.
        arguments: those of the constructor.
    """

    kind: type[TableSource]
    arguments: dict[str, Any]

    def build(self) -> TableSource:
        """The source."""
        return self.kind(**self.arguments)

    def to_yaml(self) -> dict[str, Any]:
        """`class_path` and `init_args`."""
        return {"class_path": f"c2c_lightning.data.sources.{self.kind.__name__}", "init_args": self.arguments}


def detect_source(path: str) -> SourceChoice:
    """The source for rows of a file, folder or hub data set.

    Raises:
        DataError: there are no such rows, or their columns are those of no known shape.

    Example:
        >>> detect_source("embedded:facts/train_chat").kind.__name__
        'Messages'
    """
    columns: set[str] = set()
    problem: C2CError | None = None
    for row in islice(iter(Messages(path).load()), _ROWS):
        try:
            columns.update(name for name, value in decode(row).items() if value is not None)
        except C2CError as error:
            problem = problem or error
    if not columns and problem is not None:
        raise DataError(f"The first {_ROWS} rows of `{path}` cannot be read: {problem}") from problem
    return _choice(path, columns)


def _choice(path: str, columns: Collection[str]) -> SourceChoice:
    if {"messages", "conversations", "instruction"} & set(columns):
        return SourceChoice(Messages, {"path": path})
    if {"question", "choices", "answer"} <= set(columns):
        return SourceChoice(MultipleChoice, {"path": path})
    if {"context", "input", "answers"} <= set(columns):
        return SourceChoice(LongBench, {"path": path})
    for prompt, response in PAIRS:
        if {prompt, response} <= set(columns):
            return SourceChoice(PromptResponse, {"path": path, "prompt": prompt, "response": response})
    pairs = ", ".join(f"`{prompt}` and `{response}`" for prompt, response in PAIRS)
    present = ", ".join(f"`{name}`" for name in sorted(columns)) or "(none)"
    raise DataError(
        f"Rows of `{path}` have the columns {present}. Known are "
        f"`messages`, `conversations` or `instruction`; `question`, `choices` and `answer`; {pairs}. Rename the "
        "columns, or write the configuration with a source of `c2c_lightning.data.sources`."
    )
