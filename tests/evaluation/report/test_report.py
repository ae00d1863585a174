"""The schema of the report, its numbers against hand computation, and its verdict."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from c2c_lightning import evaluation
from c2c_lightning.analysis.statistics import mcnemar_p_value, wilson_interval
from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import closed_gates, overlap, paired, summarise
from c2c_lightning.evaluation.report.build_report import REPORT_VERSION, build_report
from c2c_lightning.evaluation.report.publish import publish
from c2c_lightning.evaluation.report.render import markdown
from c2c_lightning.evaluation.report.terminal import show

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


def unlike(receiver: list[Prediction], closed: list[Prediction]) -> int:
    gates = closed_gates({"receiver": receiver, "c2c:gates_closed": closed})
    assert gates is not None
    return gates["unlike_receiver"]


def test_closed_gates_are_compared_word_for_word() -> None:
    receiver, closed = answers("receiver", "11"), answers("c2c:gates_closed", "11")
    assert unlike(receiver, closed) == 0
    assert unlike(receiver, [closed[0], replace(closed[1], output="else")]) == 1
    assert closed_gates({"receiver": receiver}) is None


def test_errors_and_unparsed_replies_stay_in_the_denominator() -> None:
    line = summarise([*answers("c2c", "11"), *answers("c2c", "0000", error="X: y", extracted=None)[2:]])
    assert (line["accuracy"], line["n"], line["errors"], line["errors_rows"]) == (0.5, 4, 2, [2, 3])
    line = summarise([*answers("c2c", "11"), *answers("c2c", "0000", extracted=None)[2:]])
    assert (line["accuracy"], line["n"], line["unparsed"], line["unparsed_rows"]) == (0.5, 4, 2, [2, 3])


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


def test_report_is_written_and_shown(tmp_path: Path) -> None:
    report = full_report()
    publish(report, tmp_path, with_plots=False)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    console = Console(width=200, file=io.StringIO())
    show(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "75.0" in text
    assert "Communication shown" in text
    assert "gives the receiver's answers" in text
    written = (tmp_path / "report.md").read_text()
    assert written == markdown(report)
    assert "| c2c | 75.0 |" in written
    shown = written.split("\n\n")[3].split("\n")
    titles = [cell.strip() for cell in shown[0].strip("|").split("|")][1:]
    meanings = written.split("\n\n")[4].split("\n")
    assert [line.split("**")[1] for line in meanings] == titles
    assert "Text-to-text takes 4.0 times as long as C2C." in written


def test_several_fusers_give_mean_and_spread() -> None:
    line = summarise([*answers("c2c", "1100"), *answers("c2c", "1110", fuser=1)])
    assert (line["accuracy"], line["n"], line["accuracy_by_fuser"]) == (0.625, 4, [0.5, 0.75])
    assert line["spread"] == pytest.approx(0.25 / 2**0.5)
    assert "spread" not in summarise(answers("c2c", "1100"))


def test_fused_responders_are_paired_by_their_fuser_and_the_worst_run_counts() -> None:
    c2c = [*answers("c2c", "1111" * 5), *answers("c2c", "1110" * 5, fuser=1)]
    mismatched = [
        *answers("c2c:mismatched", "0000" * 5),
        *answers("c2c:mismatched", "1000" * 5, draw=1),
        *answers("c2c:mismatched", "1100" * 5, fuser=1),
        *answers("c2c:mismatched", "0000" * 5, fuser=1, draw=1),
    ]
    line = paired(c2c, mismatched)
    assert line["difference"] == pytest.approx(0.875 - 0.1875)
    # The second fuser against its own first draw: 5 questions, all for C2C.
    assert line["p_value"] == mcnemar_p_value(5, 0)
    assert paired(c2c, answers("receiver", "0000" * 5))["p_value"] == mcnemar_p_value(15, 0)


def test_run_with_opposite_sign_has_p_value_1() -> None:
    c2c = [*answers("c2c", "1" * 40), *answers("c2c", "0" * 40, fuser=1)]
    assert paired(c2c, answers("t2t", "0" * 19 + "1" * 21))["p_value"] == 1.0


def test_report_begins_and_ends_with_the_verdict() -> None:
    report = full_report()
    lines = markdown(report).rstrip("\n").split("\n")
    assert lines[:2] == ["# Evaluation", ""]
    assert lines[2].startswith("- bench: Communication shown at p < 0.01")
    assert lines[-1] == lines[2]
    assert report["verdict"].endswith(report["benchmarks"]["bench"]["verdict"]["text"])


def test_unexplained_differences_with_closed_gates_are_a_fault_and_leave_no_verdict() -> None:
    alone, closed = answers("receiver", "1100" * 10), answers("c2c:gates_closed", "1100" * 10)
    others = [*answers("c2c", "1110" * 10), *answers("c2c:mismatched", "0000" * 10)]
    closed[3] = replace(closed[3], output="else")
    report = build_report([*alone, *closed, *others], KNOWN, {})
    section = report["benchmarks"]["bench"]
    assert section["faults"] == ["with closed gates 1 of C2C's answers differ from the unfused receiver's."]
    assert section["verdict"]["communication"] is None
    assert "FAULT: with closed gates 1" in markdown(report)
    assert markdown(report).rstrip("\n").split("\n")[-1].startswith("- bench: No verdict: 1 answers")


def test_closed_gates_are_compared_by_log_probability_where_available() -> None:
    alone = answers("receiver", "11", log_probabilities=[-1.0, -2.0])
    closed = answers("c2c:gates_closed", "11", log_probabilities=[-1.0, -2.0])
    assert unlike(alone, closed) == 0
    closed[0] = replace(closed[0], log_probabilities=[-1.0, -2.01], output="else")
    assert unlike(alone, closed) == 0
    closed[0] = replace(closed[0], log_probabilities=[-1.0, -2.1])
    assert unlike(alone, closed) == 1
    failed = [closed[1], replace(closed[0], error="X: y")]
    assert unlike(alone, failed) == 0


def test_differences_with_closed_gates_are_reported_with_their_cause() -> None:
    alone = answers("receiver", "1100")
    closed = answers("c2c:gates_closed", "0100", output="else", shifted_positions=True, matches_unfused=True)
    closed[3] = replace(closed[3], shifted_positions=False)
    report = build_report([*alone, *closed], KNOWN, {})
    section = report["benchmarks"]["bench"]
    assert section["gates_closed"] == {"unlike_receiver": 4, "released_positions": 3, "rounding": 1, "faults": 0}
    assert section["faults"] == []
    written = markdown(report)
    assert "padding inside the receiver's prompt shifts its positions in 3 of 4 C2C prompts" in written
    assert (
        "3 answers differ from the receiver's because of the shifted positions; accuracy 25.0% against 50.0%" in written
    )
    assert "1 answers differ from the receiver's by rounding" in written
    assert "FAULT" not in written
    closed[0] = replace(closed[0], matches_unfused=False)
    assert build_report([*alone, *closed], KNOWN, {})["benchmarks"]["bench"]["faults"]


def test_errors_in_all_questions_are_a_fault() -> None:
    report = build_report(answers("c2c", "00", error="X: y", extracted=None), KNOWN, {})
    assert report["benchmarks"]["bench"]["faults"] == ["every question raised an error for c2c; see predictions.jsonl."]


def test_costs_have_median_and_90th_percentile() -> None:
    predictions = [
        replace(p, seconds=n + 1.0, prompt_tokens=10 * n, message_tokens=n, peak_memory=2**20 * n)
        for n, p in enumerate(answers("t2t", "1" * 11, phases={"message": 0.5, "decode": 0.25}))
    ]
    line = summarise(predictions)
    assert line["latency"]["total"] == {"median": 6.0, "p90": 10.0}
    assert line["latency"]["message"] == {"median": 0.5, "p90": 0.5}
    assert line["tokens"]["prompt_tokens"] == {"median": 50.0, "p90": 90.0}
    assert line["tokens"]["message_tokens"] == {"median": 5.0, "p90": 9.0}
    assert line["peak_memory_bytes"] == {"median": 5.0 * 2**20, "p90": 9.0 * 2**20}
    written = markdown(build_report(predictions, KNOWN, {}))
    assert "| t2t | 50 (90) | 3 (3) | 0 (0) | 5 (9) | 5 (9) |" in written


def keys_of(value: Any) -> set[str]:
    """All keys of nested dictionaries except names of benchmarks, responders and the like."""
    found: set[str] = set()
    for key, inner in value.items() if isinstance(value, dict) else ():
        found.add(key)
        named = key in ("benchmarks", "responders", "by_subject", "latency", "tokens")
        inside = list(inner.values()) if named else [inner]
        found |= set().union(*map(keys_of, [] if key == "overlap" else inside))
    for inner in value if isinstance(value, list) else ():
        found |= keys_of(inner)
    return found


def test_the_schema_is_documented() -> None:
    report = full_report()
    report["benchmarks"]["bench"]["responders"]["more"] = summarise(
        [
            *answers("more", "1", confidence=0.5, peak_memory=1, begins_with_choice=True, shifted_positions=True),
            *answers("more", "1", bytes_sent=1, written=True),
            *answers("more", "0", fuser=1, extracted=None),
            *answers("more", "0", fuser=2, error="X: y"),
        ]
    )
    written = (Path(str(evaluation.__file__)).parent / "README.md").read_text(encoding="utf-8")
    assert f"version {REPORT_VERSION}" in written
    assert [key for key in sorted(keys_of(report)) if f"`{key}`" not in written] == ["fuser"]
