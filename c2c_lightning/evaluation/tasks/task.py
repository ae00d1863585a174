"""Configuration of a benchmark: source of its rows, prompt, answer mode and scoring."""

from dataclasses import dataclass
from typing import Literal

from c2c_lightning.evaluation.tasks import row_parsers as rows
from c2c_lightning.evaluation.tasks.document_rows import DocumentRows
from c2c_lightning.evaluation.tasks.prompts import Wording, wording_of
from c2c_lightning.evaluation.tasks.row_parsers import RowParser

AnswerMode = Literal["generate", "letter", "cloze"]
ScoringRule = Literal["anchored", "released", "choice_text", "first_line", "maths", "longbench", "squad"]

ROW_PARSERS: dict[str, RowParser] = {
    "choice": rows.choice_row,
    "letter_key": rows.letter_key_row,
    "mmlu_redux": rows.mmlu_redux_row,
    "ceval": rows.letter_columns_row,
    "mmmlu": rows.letter_columns_row,
    "gpqa": rows.gpqa_row,
    "boolq": rows.boolq_row,
    "piqa": rows.piqa_row,
    "winogrande": rows.winogrande_row,
    "free": rows.free_row,
    "longbench": rows.longbench_row,
}

#: Values of `rows`.
ROW_KINDS = (*ROW_PARSERS, "document")


@dataclass(frozen=True)
class Task:
    """A benchmark, as in YAML. Values that are left out come from the registry, then from the defaults.

    Attributes:
        name: name in reports; a name in the registry sets all other values.
        path: rows: a file, folder or pattern (.jsonl, .json, .parquet), a hub id, or `embedded:facts/heldout`.
        subset: configuration on the hub; `*` for all of them.
        split: split on the hub.
        revision: hub revision.
        rows: parser of the rows, a name in `ROW_KINDS`.
        columns: with `rows: document` names of the columns `document`, `question`, `answer` and `subject` (default
            `source`; scores are reported for each subject) where they differ.
        shots: with `rows: document` number of worked examples that sharers read before the document.
        examples: file of the worked examples.
        wording: a name (`paper`, `paper_cot`, `maths`, `question`) or a template with `{question}`.
        mode: `generate`, `letter` (log-probability of each letter) or `cloze` (log-probability of each choice's text).
        scoring: extraction of the answer from a reply: `anchored`, `released`, `choice_text` (the whole reply is the
            text of a choice), `first_line` (the first line or first sentence is: for base models, which do not stop),
            `maths`, `longbench`, or `squad` (the first line is a right answer, with SQuAD's normalisation; F1 too).
        normalise: divisor of a cloze log-probability: `characters`, `tokens` or `none`.
        max_new_tokens: limit of an answer, in tokens; default that of the run.
        limit: number of questions, from a seeded shuffle; default all.
        seed: of that shuffle.
    """

    # None, not the default itself: only then does the registry's value apply.
    name: str
    path: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    rows: str | None = None
    columns: dict[str, str] | None = None
    shots: int | None = None
    examples: str | None = None
    wording: str | None = None
    mode: AnswerMode | None = None
    scoring: ScoringRule | None = None
    normalise: Literal["characters", "tokens", "none"] | None = None
    max_new_tokens: int | None = None
    limit: int | None = None
    seed: int | None = None

    def worded(self) -> Wording:
        """The prompt template of `wording`."""
        assert self.wording is not None
        return wording_of(self.wording)

    def parser(self) -> RowParser:
        """The parser of `rows`."""
        if self.rows == "document":
            return DocumentRows(self.path or "", self.shots or 0, self.examples, self.columns)
        return ROW_PARSERS[self.rows or "choice"]
