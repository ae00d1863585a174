"""The columns of a benchmark's table: title, meaning, and text of a cell."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its head.
        meaning: one sentence for the reader of a report.
        cell: text of a cell, from the responder's entry and its comparison with the receiver (empty without one).
    """

    title: str
    meaning: str
    cell: Callable[[Line, Line], str]


def _percent(name: str) -> Callable[[Line, Line], str]:
    return lambda line, _: f"{100 * line[name]:.1f}" if line.get(name) is not None else ""


def _count(name: str) -> Callable[[Line, Line], str]:
    return lambda line, _: str(line[name] or "")


def _accuracy(line: Line, _: Line) -> str:
    return f"{100 * line['accuracy']:.1f}" + (f" ± {100 * line['spread']:.1f}" if "spread" in line else "")


COLUMNS = (
    Column("right %", "questions answered right; ± standard deviation over fusers.", _accuracy),
    Column(
        "95 %",
        "confidence interval of the accuracy.",
        lambda line, _: f"{100 * line['ci95'][0]:.1f}-{100 * line['ci95'][1]:.1f}",
    ),
    Column("F1 %", "overlap of words with a right answer (F1 with SQuAD's normalisation).", _percent("f1")),
    Column("n", "number of questions.", lambda line, _: str(line["n"])),
    Column(
        "gain",
        "accuracy minus that of the receiver on the same questions, in points.",
        lambda _, pair: f"{100 * pair['difference']:+.1f}" if pair else "",
    ),
    Column(
        "p",
        "probability of such a gain or loss by chance (McNemar's exact test).",
        lambda _, pair: f"{pair['p_value']:.1g}" if pair else "",
    ),
    Column("kept %", "of the questions that the receiver alone answers right, those still right.", _percent("kept")),
    Column("gained %", "of the questions that only a sharer answers right, those now right.", _percent("gained")),
    Column(
        "recovery %",
        "the gain as a part of the gain of the receiver that reads the private text itself (`receiver:document`).",
        _percent("recovery"),
    ),
    Column("F1 recovery %", "the same of the gain in F1.", _percent("f1_recovery")),
    Column(
        "donor %",
        "answers that are the right ones of the question whose cache was swapped in: above chance, the cache decides.",
        _percent("follows_donor"),
    ),
    Column(
        "written %",
        "questions in which greedy decoding would begin with the text of a right choice, whatever the other choices.",
        _percent("written"),
    ),
    Column(
        "calib.",
        "mean distance between confidence and accuracy, in points (expected calibration error).",
        _percent("calibration_error"),
    ),
    Column(
        "unreadable",
        "answers from which no choice or value could be extracted; they count as wrong.",
        _count("unparsed"),
    ),
    Column("errors", "answers that raised an error; they count as wrong.", _count("errors")),
    Column(
        "ms",
        "milliseconds an answer; a batch's time is divided equally.",
        lambda line, _: f"{1000 * line['seconds_per_answer']:.1f}",
    ),
    Column(
        "bytes",
        "bytes between the models a prompt: the sharers' cache entries that are fused, or the message.",
        lambda line, _: f"{line['bytes_per_prompt']:,.0f}" if "bytes_per_prompt" in line else "",
    ),
)


def table_rows(section: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of a benchmark's table: the responder's name, then the cells of all `COLUMNS`."""
    against = {line["a"]: line for line in section["comparisons"] if line["b"] == "receiver"}
    for name, line in section["responders"].items():
        yield (name, *(column.cell(line, against.get(name, {})) for column in COLUMNS))


def filled_columns(section: Mapping[str, Any]) -> tuple[list[Column], list[tuple[str, ...]]]:
    """The columns that are not empty, and the rows of their cells after the responder's name."""
    rows = list(table_rows(section))
    kept = [n for n in range(len(COLUMNS)) if any(row[n + 1] for row in rows)]
    return [COLUMNS[n] for n in kept], [(row[0], *(row[n + 1] for n in kept)) for row in rows]
