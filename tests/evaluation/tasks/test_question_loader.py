"""Rows to questions, and what is refused before a model is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks import BENCHMARKS, QuestionViews, Task, load_questions, resolve
from c2c_lightning.evaluation.tasks.prompts import wording_of
from c2c_lightning.evaluation.tasks.task import READERS

REDUX = {"question": "Q", "choices": list("abcd"), "answer": 2, "error_type": "ok", "correct_answer": None}

# One row of each benchmark in its hub's columns (made-up content), and text, choices and answer read from it.
HUB_ROWS: list[tuple[str, dict[str, Any], tuple[str, tuple[str, ...], int]]] = [
    (
        "mmlu",
        {"question": "Q", "subject": "law", "choices": list("abcd"), "answer": 2},
        ("Q", tuple("abcd"), 2),
    ),
    (
        "mmlu_redux",
        REDUX,
        ("Q", tuple("abcd"), 2),
    ),
    (
        "mmlu_redux",
        {
            "question": "Q",
            "choices": list("abcd"),
            "answer": 2,
            "error_type": "wrong_groundtruth",
            "correct_answer": "1",
        },
        ("Q", tuple("abcd"), 1),
    ),
    (
        "mmlu_redux",
        {
            "question": "Q",
            "choices": list("abcd"),
            "answer": 2,
            "error_type": "wrong_groundtruth",
            "correct_answer": "D",
        },
        ("Q", tuple("abcd"), 3),
    ),
    (
        "openbookqa",
        {"question_stem": "Q", "choices": {"text": list("wxyz"), "label": list("ABCD")}, "answerKey": "D"},
        ("Q", tuple("wxyz"), 3),
    ),
    (
        "arc_challenge",
        {"question": "Q", "choices": {"text": list("wxyz"), "label": list("1234")}, "answerKey": "2"},
        ("Q", tuple("wxyz"), 1),
    ),
    (
        "commonsenseqa",
        {"question": "Q", "choices": {"label": list("ABCDE"), "text": list("vwxyz")}, "answerKey": "E"},
        ("Q", tuple("vwxyz"), 4),
    ),
    (
        "mmlu_pro",
        {"question": "Q", "options": list("abcdefghij"), "answer": "J", "answer_index": 9, "category": "law"},
        ("Q", tuple("abcdefghij"), 9),
    ),
    ("ceval", {"question": "Q", "A": "w", "B": "x", "C": "y", "D": "z", "answer": "C"}, ("Q", tuple("wxyz"), 2)),
    (
        "boolq",
        {"question": "is it", "passage": "P.", "answer": True},
        ("P.\n\nQuestion: is it?", ("no", "yes"), 1),
    ),
    ("piqa", {"goal": "Q", "sol1": "x", "sol2": "y", "label": 1}, ("Q", ("x", "y"), 1)),
    (
        "winogrande",
        {"sentence": "The _ fits.", "option1": "x", "option2": "y", "answer": "2"},
        ("Which choice fits the blank (_) in this sentence?\nThe _ fits.", ("x", "y"), 1),
    ),
]


@pytest.mark.parametrize(("name", "row", "expected"), HUB_ROWS)
def test_rows_of_the_hub(name: str, row: dict[str, Any], expected: tuple[str, tuple[str, ...], int]) -> None:
    fields = READERS[BENCHMARKS[name].rows or "choice"](row)
    assert isinstance(fields, dict)
    assert (fields["text"], fields["choices"], fields["answer"]) == expected


def test_gpqa_has_a_fixed_order_and_the_right_answer() -> None:
    row = {"Question": "Q", "Correct Answer": "right", **{f"Incorrect Answer {n}": f"w{n}" for n in (1, 2, 3)}}
    fields = READERS["gpqa"](row)
    assert isinstance(fields, dict)
    assert fields == READERS["gpqa"](row)
    assert fields["choices"][fields["answer"]] == "right"
    places = set()
    for number in range(40):
        other = READERS["gpqa"]({**row, "Question": str(number)})
        assert isinstance(other, dict)
        places.add(other["answer"])
    assert places == {0, 1, 2, 3}


def test_free_answers() -> None:
    fields = READERS["free"]({"question": "Q", "answer": "2 + 2 = 4\n#### 4"})
    assert isinstance(fields, dict)
    assert fields["references"] == ("4",)
    assert READERS["free"]({"problem": "Q", "answer": "\\frac{1}{2}"})["references"] == ("\\frac{1}{2}",)  # type: ignore[index]


def test_rows_left_out_on_purpose() -> None:
    redux = {"question": "Q", "choices": list("abcd"), "answer": 2, "error_type": "no_correct_answer"}
    assert READERS["mmlu_redux"](redux) == "error_type is no_correct_answer"
    arc = {"question": "Q", "choices": {"text": list("wxyz"), "label": list("1234")}, "answerKey": "2"}
    assert READERS["letter_key"](arc) == "key is not A to D"


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_registered_benchmark_resolves(name: str) -> None:
    benchmark = resolve(Task(name, path="somewhere"))
    assert None not in (benchmark.rows, benchmark.mode, benchmark.scoring, benchmark.wording, benchmark.seed)


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


ROWS = [{"id": f"q{n}", "question": f"Q{n}", "choices": ["x", "y"], "answer": n % 2, "subject": "s"} for n in range(20)]


def test_local_rows_are_questions(tmp_path: Path) -> None:
    questions = load_questions(Task("mine", write(tmp_path / "a.jsonl", ROWS)))
    assert [(q.index, q.id, q.text, q.answer) for q in questions] == [(n, f"q{n}", f"Q{n}", n % 2) for n in range(20)]
    assert (questions[1].gold, questions[1].gold_letter) == ("y", "B")


def test_a_limit_takes_the_same_questions_every_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    taken = [q.index for q in load_questions(Task("mine", path, limit=5))]
    assert taken == [q.index for q in load_questions(Task("mine", path, limit=5))]
    assert taken != list(range(5))
    assert taken != [q.index for q in load_questions(Task("mine", path, limit=5, seed=1))]


def test_the_embedded_facts_are_a_benchmark() -> None:
    questions = load_questions(Task("quickstart"))
    assert len(questions) > 300
    assert all(len(q.choices) == 8 for q in questions)


def test_private_context_is_for_sharers_alone() -> None:
    questions = load_questions(Task("private_context"))
    wording = wording_of("question")
    conversation = questions[0].conversation(wording)
    view = QuestionViews(questions, wording)(conversation)
    assert questions[0].gold not in conversation[0]["content"]
    assert any(questions[0].gold in message["content"] for message in view.sharer)
    assert view.sharer[-1]["content"] == view.sharer_question


def test_a_context_for_sharers(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Who?"}], "choices": ["Ann", "Bo"], "answer": 0}
    told = {**row, "sharer_context": "It is Ann."}
    (question,) = load_questions(Task("mine", write(tmp_path / "a.jsonl", [told])))
    assert (question.text, question.sharer) == ("Who?", (("user", "It is Ann.\n\nWho?"),))
    wrong = write(tmp_path / "b.jsonl", [{**row, "sharer_context": 17}])
    with pytest.raises(BenchmarkError, match=r"b\.jsonl:1: `sharer_context` must be text"):
        load_questions(Task("mine", wrong))


def test_views_find_the_question_without_its_choices(tmp_path: Path) -> None:
    questions = load_questions(Task("mine", write(tmp_path / "a.jsonl", ROWS)))
    wording = wording_of("paper")
    conversation = questions[3].conversation(wording)
    assert "A. x\nB. y\n" in conversation[0]["content"]
    assert QuestionViews(questions, wording)(conversation).question == "Q3"
    other = [{"role": "user", "content": "else"}]
    assert QuestionViews(questions, wording)(other).question == "else"


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (Task("nonsense"), "unknown benchmark 'nonsense'. Known are arc_challenge"),
        (Task("mine", "no/such/file.jsonl"), "no/such/file.jsonl"),
        (Task("mine", "embedded:facts/nothing"), "nothing.jsonl"),
        (Task("mine", "x", rows="rosw"), "unknown rows 'rosw'"),
        (Task("mine", "x", wording="papper"), "unknown wording 'papper'"),
        (Task("mine", "x", limit=0), "limit is 0"),
        (Task("longbench_e"), "give a `path`"),
    ],
)
def test_what_is_refused_by_name(benchmark: Task, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message.replace(".", r"\.")):
        load_questions(benchmark)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q", "choices": ["x", "y"], "answer": 2}, r":2: the answer 2 is none of the 2 choices"),
        ({"question": "Q", "choices": ["x", "y"], "answer": "C"}, "the answer 'C' is none"),
        ({"question": "Q", "choices": ["x", "y"], "answer": -1}, "the answer -1 is none"),
        ({"question": "Q", "choices": ["x"], "answer": 0}, "at least two choices"),
        ({"question": "Q", "choices": "xy", "answer": 0}, "must be a list of texts"),
        ({"question": "Q", "answer": 0}, "no column 'choices' or 'options'; the row has 'question', 'answer'"),
        ({"choices": ["x", "y"], "answer": 0}, "no column 'question'"),
        ("{broken", "not JSON"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", [ROWS[0], row])
    with pytest.raises(BenchmarkError, match=message):
        load_questions(Task("mine", path))


def test_an_empty_benchmark_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["\n"])
    with pytest.raises(BenchmarkError, match=r"no questions|is empty|no rows"):
        load_questions(Task("mine", path))


def test_no_questions_after_filtering_says_what_was_left_out(tmp_path: Path) -> None:
    redux = [{**REDUX, "error_type": "expert"}, {**REDUX, "error_type": "no_correct_answer"}]
    with pytest.raises(BenchmarkError, match=r"has no questions at .*error_type is expert': 1"):
        load_questions(Task("mmlu_redux", write(tmp_path / "a.jsonl", redux)))
    unanswered = [{"question": "Q", "A": "w", "B": "x", "C": "y", "D": "z", "answer": ""}]
    with pytest.raises(BenchmarkError, match=r"ceval has no questions at .*no answer"):
        load_questions(Task("ceval", write(tmp_path / "b.jsonl", unanswered)))


def test_longbench_rows(tmp_path: Path) -> None:
    row = {"dataset": "trec_e", "context": "C", "input": "I", "answers": ["City"], "length": 5000, "_id": "q"}
    [question] = load_questions(Task("longbench_e", write(tmp_path / "a.jsonl", [{**row, "all_classes": ["City"]}])))
    assert (question.id, question.task, question.subject, question.classes) == ("q", "trec", "4-8k", ("City",))
    assert question.references == ("City",)
    with pytest.raises(BenchmarkError, match="unknown LongBench-E task 'nonsense'"):
        load_questions(Task("longbench_e", write(tmp_path / "b.jsonl", [{**row, "dataset": "nonsense"}])))


def test_hub_names_of_the_papers_benchmarks() -> None:
    named = {name: (entry.path, entry.subset, entry.split) for name, entry in BENCHMARKS.items()}
    assert named["mmlu_redux"][0] == "edinburgh-dawg/mmlu-redux-2.0"
    assert named["ceval"] == ("ceval/ceval-exam", "*", "val")
    wanted = {"mmlu", "mmlu_pro", "openbookqa", "arc_challenge", "arc_easy", "gpqa", "commonsenseqa", "boolq", "piqa"}
    wanted |= {"winogrande", "gsm8k", "math_500"}
    assert all("/" in str(named[name][0]) for name in wanted)


def test_modes_need_choices_that_are_shown(tmp_path: Path) -> None:
    free = write(tmp_path / "free.jsonl", [{"question": "Q", "answer": "4"}])
    with pytest.raises(BenchmarkError, match="has no choices"):
        load_questions(Task("mine", free, rows="free", mode="cloze"))
    assert load_questions(Task("mine", free, rows="free", scoring="maths"))[0].gold == "4"
    hidden = write(tmp_path / "hidden.jsonl", ROWS)
    with pytest.raises(BenchmarkError, match="shows the choices"):
        load_questions(Task("mine", hidden, wording="question", mode="letter"))
