"""Shots of each subject."""

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.oracle.shots import choose_shots, without_shots
from c2c_lightning.evaluation.tasks import Question


def question(text: str, subject: str) -> Question:
    return Question(0, text, text, ("yes", "no"), 0, subject=subject)


ROWS = [question(f"{subject} {n}?", subject) for n in range(6) for subject in ("law", "art")]


def test_the_first_rows_of_a_subject_are_its_shots() -> None:
    shots = choose_shots(ROWS, ["law"], 3)
    assert [shot.text for shot in shots["law"]] == ["law 0?", "law 1?", "law 2?"]
    assert set(shots) == {"law"}


def test_a_seed_samples_them() -> None:
    one, same, other = (choose_shots(ROWS, ["law"], 3, seed=seed)["law"] for seed in (1, 1, 2))
    assert one == same != other
    assert {shot.subject for shot in one} == {"law"}


def test_a_subject_without_enough_shots_is_named() -> None:
    with pytest.raises(BenchmarkError, match=r"1 of 2 subjects .* fewer than 5 shots \(tax: 0\).*min_shots"):
        choose_shots(ROWS, ["law", "tax"], 5)
    with pytest.raises(BenchmarkError, match=r"law: 6"):
        choose_shots(ROWS, ["law"], 8)
    assert len(choose_shots(ROWS, ["law"], 8, minimum=6)["law"]) == 6
    with pytest.raises(BenchmarkError, match="`min_shots` is 0"):
        choose_shots(ROWS, ["law"], 8, minimum=0)


def test_questions_that_are_shots_are_left_out() -> None:
    asked = [question("law 1? ", "law"), question("law 5?", "law"), question("art 1?", "law")]
    assert without_shots(asked, choose_shots(ROWS, ["law"], 3)) == asked[1:]
