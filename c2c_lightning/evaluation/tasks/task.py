"""What a benchmark is: where its rows are, how they are worded, and how answers are given and read."""

from dataclasses import dataclass
from typing import Literal

from c2c_lightning.evaluation.tasks import row_parsers as rows
from c2c_lightning.evaluation.tasks.prompts import Wording, wording_of

AnswerMode = Literal["generate", "letter", "cloze"]
ScoringRule = Literal["anchored", "released", "choice_text", "maths", "longbench"]

READERS: dict[str, rows.Reader] = {
    "choice": rows.choice_row,
    "letter_key": rows.letter_key_row,
    "mmlu_redux": rows.mmlu_redux_row,
    "ceval": rows.ceval_row,
    "gpqa": rows.gpqa_row,
    "boolq": rows.boolq_row,
    "piqa": rows.piqa_row,
    "winogrande": rows.winogrande_row,
    "free": rows.free_row,
    "longbench": rows.longbench_row,
}


@dataclass(frozen=True)
class Task:
    """A benchmark, as YAML gives it. What is left out comes from the registry, for names that are in it.

    Attributes:
        name: how it is called in reports; a name of the registry brings everything else along.
        path: rows: a file, folder or pattern (.jsonl, .json, .parquet), a name on the hub, or `embedded:facts/heldout`.
        subset: configuration on the hub; `*` for all of them.
        split: split on the hub.
        revision: hub revision.
        rows: how rows are read, a name of `READERS`.
        wording: a name (`paper`, `paper_cot`, `maths`, `question`) or a template with `{question}`.
        mode: how answers are given: `generate`, `letter` (likelihood of the letters) or `cloze` (likelihood of the
            choices' texts).
        scoring: how replies are read: `anchored`, `released`, `choice_text`, `maths` or `longbench`.
        normalise: what a cloze log-probability is divided by: `characters`, `tokens` or `none`.
        max_new_tokens: limit of an answer, default the run's.
        limit: how many questions, from a seeded shuffle; default all.
        seed: of that shuffle.
    """

    name: str
    path: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    rows: str | None = None
    wording: str | None = None
    mode: AnswerMode | None = None
    scoring: ScoringRule | None = None
    normalise: Literal["characters", "tokens", "none"] | None = None
    max_new_tokens: int | None = None
    limit: int | None = None
    seed: int | None = None

    def worded(self) -> Wording:
        """The wording."""
        assert self.wording is not None
        return wording_of(self.wording)
