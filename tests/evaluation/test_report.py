"""The report's schema, its numbers by hand, and its verdict."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from c2c_lightning.evaluation.predictions import Prediction
from c2c_lightning.evaluation.render import markdown, show
from c2c_lightning.evaluation.report import build_report, combine_reports, write_report
from c2c_lightning.evaluation.statistics import mcnemar_p_value, wilson_interval
from c2c_lightning.evaluation.summary import overlap, paired, summarise, unlike_receiver

ONE = Prediction("bench", "c2c", 0, 0, "q", "s", "Q", "out", "A", "A", 1.0, True, seconds=0.5, new_tokens=3)


def answers(responder: str, right: str, **changes: Any) -> list[Prediction]:
    """One prediction for each character: 1 right, 0 wrong."""
    return [
        replace(ONE, responder=responder, index=n, score=float(mark), correct=mark == "1", **changes)
        for n, mark in enumerate(right)
    ]


KNOWN = {"bench": {"mode": "generate", "scoring": "anchored"}}


def full_report() -> dict[str, Any]:
    predictions = [
        *answers("receiver", "1000" * 10, subject="a"),
        *answers("sharer", "1110" * 10, subject="b"),
        *answers("t2t", "1100" * 10, seconds=2.0, message="hint", phases={"message": 1.5, "decode": 0.5}),
        *answers("c2c", "1110" * 10, phases={"fuse": 0.1, "decode": 0.4}),
        *answers("c2c:mismatched", "1000" * 10, donor=1, follows_donor=True),
        *answers("c2c:mismatched", "0000" * 10, draw=1, donor=1, follows_donor=False),
        *answers("c2c:gates_closed", "1000" * 10),
    ]
    return build_report(predictions, KNOWN, {"fuser": "somewhere"})


def test_the_schema_that_outside_checks_rely_on() -> None:
    report = full_report()
    assert isinstance(report["version"], int)
    line = report["benchmarks"]["bench"]["responders"]["c2c"]
    assert line["accuracy"] == 0.75
    assert line["n"] == 40
    assert line["ci95"] == list(wilson_interval(30.0, 40))
    assert line["seconds_per_answer"] == 0.5
    assert set(report["benchmarks"]["bench"]["responders"]) == {
        "receiver", "sharer", "t2t", "c2c", "c2c:mismatched", "c2c:gates_closed",
    }  # fmt: skip
    json.dumps(report)


def test_draws_are_averaged_and_the_largest_p_counts() -> None:
    section = full_report()["benchmarks"]["bench"]
    line = section["responders"]["c2c:mismatched"]
    assert (line["accuracy"], line["n"]) == (0.125, 40)
    assert line["accuracy_by_draw"] == [0.25, 0.0]
    assert line["follows_donor"] == 0.5
    pair = next(c for c in section["comparisons"] if (c["a"], c["b"]) == ("c2c", "c2c:mismatched"))
    assert pair["difference"] == pytest.approx(0.625)
    assert pair["p_value"] == mcnemar_p_value(20, 0)


def test_pairs_and_sets() -> None:
    section = full_report()["benchmarks"]["bench"]
    pair = next(c for c in section["comparisons"] if (c["a"], c["b"]) == ("c2c", "t2t"))
    assert (pair["a_only"], pair["b_only"]) == (10, 0)
    assert section["oracle"] == {"of": ["receiver", "sharer"], "accuracy": 0.75, "n": 40}
    assert section["overlap"]["sharer+c2c"] == 20
    assert section["overlap"]["receiver+sharer+c2c"] == 10
    assert section["overlap"]["none"] == 10
    assert sum(section["overlap"].values()) == 40


def test_the_verdict_needs_more_than_the_mismatched_cache() -> None:
    assert full_report()["benchmarks"]["bench"]["verdict"]["communication"] is True
    same = [*answers("c2c", "1100" * 10), *answers("c2c:mismatched", "0110" * 10)]
    section = build_report(same, KNOWN, {})["benchmarks"]["bench"]
    assert section["verdict"]["communication"] is False
    assert "not shown" in section["verdict"]["text"]
    alone = build_report(answers("c2c", "11"), KNOWN, {})["benchmarks"]["bench"]
    assert alone["verdict"]["communication"] is None
    worse = [*answers("c2c", "0000" * 10), *answers("c2c:mismatched", "1111" * 10)]
    assert build_report(worse, KNOWN, {})["benchmarks"]["bench"]["verdict"]["communication"] is False


def test_closed_gates_are_compared_word_for_word() -> None:
    receiver, closed = answers("receiver", "11"), answers("c2c:gates_closed", "11")
    assert unlike_receiver({"receiver": receiver, "c2c:gates_closed": closed}) == 0
    other = [closed[0], replace(closed[1], output="else")]
    assert unlike_receiver({"receiver": receiver, "c2c:gates_closed": other}) == 1
    assert unlike_receiver({"receiver": receiver}) is None


def test_errors_and_unparsed_replies_stay_in_the_denominator() -> None:
    line = summarise([*answers("c2c", "11"), *answers("c2c", "0000", error="X: y", extracted=None)[2:]])
    assert (line["accuracy"], line["n"], line["errors"], line["unparsed"]) == (0.5, 4, 2, 2)


def test_partial_scores_get_a_bootstrap_interval() -> None:
    predictions = [replace(p, score=0.25 * (n % 5)) for n, p in enumerate(answers("c2c", "1" * 50))]
    line = summarise(predictions)
    assert line["accuracy"] == pytest.approx(0.5)
    assert line["ci95"][0] < 0.5 < line["ci95"][1]


def test_pairs_only_use_questions_that_both_answered() -> None:
    assert paired(answers("a", "1111"), answers("b", "10"))["n"] == 2
    assert overlap({"receiver": answers("receiver", "1")}) == {}


def test_calibration_is_reported_where_there_are_probabilities() -> None:
    line = summarise(answers("receiver", "1111", confidence=0.9))
    assert line["calibration_error"] == pytest.approx(0.1, abs=1e-6)
    assert "calibration_error" not in summarise(answers("receiver", "1111"))


def test_it_is_written_and_shown(tmp_path: Path) -> None:
    report = full_report()
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    console = Console(width=200, file=io.StringIO())
    show(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "75.0" in text
    assert "Communication shown" in text
    assert "word for word" in text
    written = markdown(report)
    assert "| c2c | 75.0 |" in written
    assert "Text-to-text takes 4.0 times as long as C2C." in written


def test_runs_are_combined() -> None:
    low = build_report(answers("c2c", "1100"), KNOWN, {})
    high = build_report(answers("c2c", "1110"), KNOWN, {})
    line = combine_reports([low, high])["bench"]["c2c"]
    assert (line["mean"], line["runs"]) == (0.625, [0.5, 0.75])
    assert line["spread"] == pytest.approx(0.25 / 2**0.5)
