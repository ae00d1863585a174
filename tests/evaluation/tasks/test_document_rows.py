"""Benchmark rows with a private document, a question and its answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks import Task, load_questions

ROWS: list[dict[str, Any]] = [
    {"id": "a", "document": "Ann draws lamps.", "question": "What does Ann draw?", "answer": "lamps"},
    {"document": "Bo eats figs.", "question": "What does Bo eat?", "answer": ["figs", "some figs"], "source": "food"},
]
OPTIONS: dict[str, Any] = {"rows": "document", "wording": "question", "mode": "generate", "scoring": "squad"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_document_is_read_by_sharers_and_the_question_by_all(tmp_path: Path) -> None:
    write(tmp_path / "shots.jsonl", ROWS[:1])
    write(tmp_path / "rows.jsonl", ROWS)
    task = Task("mine", "rows.jsonl", shots=1, examples="shots.jsonl", **OPTIONS)
    first, second = load_questions(task, tmp_path)
    prompt = second.prompt(task.worded())
    assert list(prompt) == [{"role": "user", "content": "What does Bo eat?"}]
    assert [message["content"] for message in prompt.sharer] == [
        "Ann draws lamps.\n\nWhat does Ann draw?",
        "lamps",
        "Bo eats figs.\n\nWhat does Bo eat?",
    ]
    assert (first.id, first.references, first.subject) == ("a", ("lamps",), "")
    assert (second.references, second.subject, second.gold) == (("figs", "some figs"), "food", "figs")


def test_choices_allow_likelihood_scoring(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "choices": ["pens", "lamps"]}]
    task = Task("mine", write(tmp_path / "rows.jsonl", rows), rows="document", wording="question", mode="cloze")
    (question,) = load_questions(task)
    assert (question.choices, question.answer, question.gold) == (("pens", "lamps"), 1, "lamps")
    wrong = write(tmp_path / "wrong.jsonl", [{**ROWS[0], "choices": ["pens", "cups"]}])
    with pytest.raises(BenchmarkError, match=r"wrong\.jsonl:1: the answer 'lamps' is none of the choices"):
        load_questions(Task("mine", wrong, rows="document", wording="question", mode="cloze"))


def test_columns_have_other_names(tmp_path: Path) -> None:
    row = {"passage": "Ann draws lamps.", "ask": "What?", "answers": ["lamps"], "kind": "art"}
    columns = {"document": "passage", "question": "ask", "answer": "answers", "subject": "kind"}
    (question,) = load_questions(Task("mine", write(tmp_path / "r.jsonl", [row]), columns=columns, **OPTIONS))
    assert (question.text, question.gold, question.subject) == ("What?", "lamps", "art")


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"document": ""}, {}, r"r\.jsonl:1: `document` is empty"),
        ({}, {"columns": {"document": "text"}}, r"r\.jsonl:1: The row has no `text`; it has `id`, `document`"),
        ({}, {"columns": {"passage": "text"}}, "`columns` has no 'passage'. Known are document, question"),
        ({}, {"shots": 2}, "`shots` is 2, but there are no worked examples"),
    ],
)
def test_rows_and_options_that_do_not_fit(
    changed: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "r.jsonl", [{**ROWS[0], **changed}])
    with pytest.raises(BenchmarkError, match=message):
        load_questions(Task("mine", path, **options, **OPTIONS))
