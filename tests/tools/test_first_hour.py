"""The transcript of the first hour: what it counts and shows, and when it fails."""

from pathlib import Path

import pytest

from tools.first_hour import __main__ as first_hour
from tools.first_hour.steps import Step, own_pair, quickstart, write_inputs
from tools.first_hour.transcript import MOST_LINES, Played, clean, page


def test_the_page_has_times_and_counts_of_lines() -> None:
    played = [Played(Step("One", "lightning one --x 1"), "out", 30.0, True), Played(Step("Two", "b"), "", 60.0, True)]
    text = page(played, "a machine", "model:\n  x: 1\n", "task: mine\n")
    assert "**1.5 minutes** in all on a machine" in text
    assert "YAML written by hand: 1 lines" in text
    assert "wrote 2 more" in text
    assert "| One | `lightning one` | 30.0 |" in text
    assert "$ lightning one --x 1\nout\n```" in text


def test_long_output_is_cut_in_the_middle_and_says_so() -> None:
    lines = [f"line {number}" for number in range(MOST_LINES + 5)]
    text = page([Played(Step("Long", "x"), "\n".join(lines), 1.0, True)], "", "", "")
    assert "[… 5 lines]" in text
    assert lines[0] in text
    assert lines[-1] in text
    assert lines[MOST_LINES // 2 + 1] not in text


def test_a_line_that_is_redrawn_is_shown_as_it_was_left() -> None:
    assert clean("\x1b[31mred\x1b[0m\n\n1%\r50%\r100%\n") == ["red", "100%"]


def test_the_inputs_are_fifty_rows_and_twenty_questions_on_other_facts(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    questions = (tmp_path / "questions.jsonl").read_text().splitlines()
    assert (len(rows), len(questions)) == (50, 20)
    assert (tmp_path / "models" / "sharer" / "config.json").is_file()
    assert len((tmp_path / "tasks" / "mine.yaml").read_text().splitlines()) <= 10


@pytest.mark.parametrize(
    "step",
    [Step("fails", "exit 3"), Step("leaves nothing", "true", result="missing.txt")],
    ids=lambda step: step.title,
)
def test_a_failure_ends_the_hour(step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_hour, "own_pair", lambda _: [step, Step("never", "touch never")])
    monkeypatch.setattr(first_hour, "_install", lambda _: [])
    monkeypatch.setattr(first_hour, "write_inputs", lambda _: None)
    assert first_hour.main(["--transcript", str(tmp_path / "page.md")]) == 1
    assert not (tmp_path / "page.md").exists()


def test_short_trainings_are_the_same_commands() -> None:
    whole, short = [[*quickstart(count), *own_pair(count)] for count in (None, 5)]
    assert [step.title for step in whole] == [step.title for step in short]
    assert all(cut.command.startswith(step.command) for step, cut in zip(whole, short, strict=True))
