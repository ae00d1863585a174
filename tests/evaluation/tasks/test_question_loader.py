"""Parsing of rows to questions, and named errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks import BENCHMARKS, Task, load_questions, resolve
from c2c_lightning.evaluation.tasks.prompts import wording_of
from c2c_lightning.evaluation.tasks.task import ROW_PARSERS

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
        "mmmlu",
        {"Question": "Q", "A": "w", "B": "x", "C": "y", "D": "z", "Answer": "B", "Subject": "law"},
        ("Q", tuple("wxyz"), 1),
    ),
    (
        "boolq",
        {"question": "is it", "passage": "P.", "answer": True},
        ("P.\n\nQuestion: is it?", ("no", "yes"), 1),
    ),
    (
        "boolq",
        {"question": "is it", "passage": "P.", "answer": "False"},
        ("P.\n\nQuestion: is it?", ("no", "yes"), 0),
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
    fields = ROW_PARSERS[BENCHMARKS[name].rows or "choice"](row)
    assert isinstance(fields, dict)
    assert (fields["text"], fields["choices"], fields["answer"]) == expected


def test_gpqa_has_a_fixed_order_and_the_right_answer() -> None:
    row = {"Question": "Q", "Correct Answer": "right", **{f"Incorrect Answer {n}": f"w{n}" for n in (1, 2, 3)}}
    fields = ROW_PARSERS["gpqa"](row)
    assert isinstance(fields, dict)
    assert fields == ROW_PARSERS["gpqa"](row)
    assert fields["choices"][fields["answer"]] == "right"
    places = set()
    for number in range(40):
        other = ROW_PARSERS["gpqa"]({**row, "Question": str(number)})
        assert isinstance(other, dict)
        places.add(other["answer"])
    assert places == {0, 1, 2, 3}


def test_gpqa_prefers_the_second_revision() -> None:
    names = ("Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))
    row = {name: name for name in names} | {f"Extra Revised {name}": None for name in names}
    revised = ROW_PARSERS["gpqa"]({**row, "Extra Revised Question": "Q2", "Extra Revised Correct Answer": "right"})
    assert isinstance(revised, dict)
    assert (revised["text"], revised["choices"][revised["answer"]]) == ("Q2", "right")
    assert set(revised["choices"]) == {"right", *names[2:]}
    plain = ROW_PARSERS["gpqa"](row)
    assert isinstance(plain, dict)
    assert plain["text"] == "Question"


WRONG_KEY = {**REDUX, "choices": ["Paris", "Rome", "Nice and Lyon", "Bonn"], "error_type": "wrong_groundtruth"}


@pytest.mark.parametrize(
    ("correction", "right"),
    [
        ("3", (3,)),
        (1, (1,)),
        ("B", (1,)),
        ("(d)", (3,)),
        ("b. Rome", (1,)),
        ("Rome", (1,)),
        ("  rome. ", (1,)),
        ("Nice and Lyon", (2,)),
        ("A and C", (0, 2)),
        ("A, B or D", (0, 1, 3)),
        ("Paris / Bonn", (0, 3)),
    ],
)
def test_corrected_keys_of_mmlu_redux(correction: Any, right: tuple[int, ...]) -> None:
    fields = ROW_PARSERS["mmlu_redux"]({**WRONG_KEY, "correct_answer": correction})
    assert isinstance(fields, dict)
    assert (fields["answer"], *fields["also_right"]) == right


@pytest.mark.parametrize("correction", ["", None, "E", "7", "Berlin", "A and Berlin", "b. Paris", "none of them", True])
def test_unparsable_corrections_exclude_the_question(correction: Any) -> None:
    reason = ROW_PARSERS["mmlu_redux"]({**WRONG_KEY, "correct_answer": correction})
    assert reason == "the correction of a wrong key cannot be parsed"


def test_several_right_answers_of_mmlu_redux() -> None:
    row = {**WRONG_KEY, "error_type": "multiple_correct_answers"}
    several = ROW_PARSERS["mmlu_redux"]({**row, "correct_answer": "C and D"})
    assert isinstance(several, dict)
    assert (several["answer"], several["also_right"]) == (2, (3,))
    unparsable = ROW_PARSERS["mmlu_redux"]({**row, "correct_answer": "all of them"})
    assert isinstance(unparsable, dict)
    assert unparsable["answer"] == 2


def test_unparsable_corrections_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**WRONG_KEY, "correct_answer": correction} for correction in ("", "Rome", "A and C", "?")]
    with caplog.at_level("INFO"):
        questions = load_questions(Task("mmlu_redux", write(tmp_path / "a.jsonl", rows)))
    assert [question.right for question in questions] == [(1,), (0, 2)]
    assert "mmlu_redux: 2 rows excluded (the correction of a wrong key cannot be parsed)" in caplog.text


def test_free_answers() -> None:
    fields = ROW_PARSERS["free"]({"question": "Q", "answer": "2 + 2 = 4\n#### 4"})
    assert isinstance(fields, dict)
    assert fields["references"] == ("4",)
    assert ROW_PARSERS["free"]({"problem": "Q", "answer": "\\frac{1}{2}"})["references"] == ("\\frac{1}{2}",)  # type: ignore[index]


def test_excluded_rows_have_a_reason() -> None:
    redux = {"question": "Q", "choices": list("abcd"), "answer": 2, "error_type": "no_correct_answer"}
    assert ROW_PARSERS["mmlu_redux"](redux) == "error_type is no_correct_answer"
    arc = {"question": "Q", "choices": {"text": list("wxyz"), "label": list("1234")}, "answerKey": "2"}
    assert ROW_PARSERS["letter_key"](arc) == "key is not A to D"


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
    prompt = questions[0].prompt(wording_of("question"))
    assert questions[0].gold not in prompt[0]["content"]
    assert any(questions[0].gold in message["content"] for message in prompt.sharer)
    assert prompt.sharer[-1]["content"] == prompt.sharer_question


def test_a_context_for_sharers(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Who?"}], "choices": ["Ann", "Bo"], "answer": 0}
    private = {**row, "sharer_context": "It is Ann."}
    (question,) = load_questions(Task("mine", write(tmp_path / "a.jsonl", [private])))
    assert (question.text, question.sharer) == ("Who?", ({"role": "user", "content": "It is Ann.\n\nWho?"},))
    wrong = write(tmp_path / "b.jsonl", [{**row, "sharer_context": 17}])
    with pytest.raises(BenchmarkError, match=r"b\.jsonl:1: `sharer_context` must be text"):
        load_questions(Task("mine", wrong))


def test_messages_before_the_question_stay_in_the_prompt(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hm?", "name": "Ann"}]
    messages = [system, *turns, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}]
    row = {"messages": messages, "sharer_messages": messages, "choices": ["Ann", "Bo"], "answer": 0}
    (question,) = load_questions(Task("mine", write(tmp_path / "a.jsonl", [row])))
    prompt = question.prompt(wording_of("question"))
    assert prompt == messages[:-1]
    assert prompt.sharer == messages[:-1]
    no_question = write(tmp_path / "b.jsonl", [{**row, "messages": [system]}])
    with pytest.raises(BenchmarkError, match="no message of the user"):
        load_questions(Task("mine", no_question))


def test_a_prompt_holds_the_question_without_its_choices(tmp_path: Path) -> None:
    questions = load_questions(Task("mine", write(tmp_path / "a.jsonl", ROWS)))
    prompt = questions[3].prompt(wording_of("paper"))
    assert "A. x\nB. y\n" in prompt[0]["content"]
    assert prompt.question == "Q3"


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (Task("nonsense"), "unknown benchmark 'nonsense'. Known are arc_challenge"),
        (Task("mine", "no/such/file.jsonl"), "no/such/file.jsonl"),
        (Task("mine", "embedded:facts/nothing"), "nothing.jsonl"),
        (Task("mine", "x", rows="rosw"), "unknown rows 'rosw'"),
        (Task("mine", "x", wording="papper"), "unknown wording 'papper'"),
        (Task("mine", "x", limit=0), "limit is 0"),
        (Task("longbench_e"), "set `path`"),
    ],
)
def test_invalid_benchmarks_are_named_errors(benchmark: Task, message: str) -> None:
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
def test_invalid_rows_are_named_errors(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", [ROWS[0], row])
    with pytest.raises(BenchmarkError, match=message):
        load_questions(Task("mine", path))


def test_an_empty_benchmark_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["\n"])
    with pytest.raises(BenchmarkError, match=r"no questions|is empty|no rows"):
        load_questions(Task("mine", path))


def test_no_questions_after_exclusions_is_a_named_error(tmp_path: Path) -> None:
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
    named = {name: (entry.path, entry.subset, entry.split or "test") for name, entry in BENCHMARKS.items()}
    assert named["mmlu_redux"][0] == "edinburgh-dawg/mmlu-redux-2.0"
    assert named["ceval"] == ("ceval/ceval-exam", "*", "val")
    wanted = {"mmlu", "mmlu_pro", "openbookqa", "arc_challenge", "arc_easy", "gpqa", "commonsenseqa", "boolq", "piqa"}
    wanted |= {"winogrande", "gsm8k", "math_500"}
    assert all("/" in str(named[name][0]) for name in wanted)
    assert named["mmmlu"] == ("openai/MMMLU", "default", "test")


def test_modes_letter_and_cloze_need_choices(tmp_path: Path) -> None:
    free = write(tmp_path / "free.jsonl", [{"question": "Q", "answer": "4"}])
    with pytest.raises(BenchmarkError, match="has no choices"):
        load_questions(Task("mine", free, rows="free", mode="cloze"))
    assert load_questions(Task("mine", free, rows="free", scoring="maths"))[0].gold == "4"
    hidden = write(tmp_path / "hidden.jsonl", ROWS)
    with pytest.raises(BenchmarkError, match="shows the choices"):
        load_questions(Task("mine", hidden, wording="question", mode="letter"))


@pytest.mark.parametrize(
    ("given", "wording", "mode"),
    [
        (Task("mine", path="x"), "question", "cloze"),
        (Task("mine", path="x", rows="choice", limit=3), "question", "cloze"),
        (Task("mine", path="x", mode="generate"), "paper", "generate"),
        (Task("mine", path="x", wording="question"), "question", "generate"),
        (Task("mine", path="x", scoring="first_line"), "paper", "generate"),
        (Task("mine", path="x", rows="boolq"), "paper", "generate"),
        (Task("arc_easy", path="x"), "paper", "generate"),
    ],
)
def test_own_multiple_choice_rows_are_asked_by_likelihood_unless_something_else_is_said(
    given: Task, wording: str, mode: str
) -> None:
    found = resolve(given)
    assert (found.wording, found.mode) == (wording, mode)
