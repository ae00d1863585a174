"""The report: `report.json`, whose schema is versioned, and a verdict in words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.evaluation.prediction_log import Prediction, write_atomically
from c2c_lightning.evaluation.report.aggregate import comparisons, oracle, overlap, paired, summarise, unlike_receiver

#: Version of the schema of `report.json`; raised when a field changes its meaning or goes.
REPORT_VERSION = 1

#: The level of the verdict.
ALPHA = 0.01


def build_report(
    predictions: Sequence[Prediction], benchmarks: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that an evaluation has to say; README.md beside this file explains each field.

    Args:
        predictions: of all benchmarks and responders.
        benchmarks: what is known of each benchmark beside its predictions (mode, scoring, ...).
        run: what is known of the run (fuser, models, package version, ...).

    Returns:
        `{"version", "run", "benchmarks": {NAME: {..., "responders": {NAME: {"accuracy", "n", "ci95",
        "seconds_per_answer", ...}}, "comparisons", "verdict"}}, "verdict"}`.
    """
    sections = {}
    for name, known in benchmarks.items():
        sections[name] = dict(known) | _section([p for p in predictions if p.benchmark == name])
    verdicts = [f"{name}: {section['verdict']['text']}" for name, section in sections.items()]
    return {"version": REPORT_VERSION, "run": dict(run), "benchmarks": sections, "verdict": " ".join(verdicts)}


def _section(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One benchmark."""
    by_responder: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_responder.setdefault(prediction.responder, []).append(prediction)
    lines = {name: summarise(answers) for name, answers in by_responder.items()}
    unlike = unlike_receiver(by_responder)
    return {
        "responders": lines,
        "comparisons": comparisons(by_responder),
        "oracle": oracle(by_responder),
        "overlap": overlap(by_responder),
        "t2t_to_c2c_seconds": _time_ratio(lines),
        "gates_closed_unlike_receiver": unlike,
        "faults": _faults(lines, unlike),
        "verdict": _no_verdict(unlike) if unlike else verdict(by_responder),
    }


def _no_verdict(unlike: int) -> dict[str, Any]:
    text = f"No verdict: {unlike} answers with closed gates are not the receiver's, so the program is at fault."
    return {"communication": None, "p_value": None, "text": text}


def _time_ratio(lines: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How many times as long text-to-text takes as C2C."""
    if not {"t2t", "c2c"} <= set(lines) or lines["c2c"]["seconds_per_answer"] <= 0:
        return None
    return float(lines["t2t"]["seconds_per_answer"] / lines["c2c"]["seconds_per_answer"])


def _faults(lines: Mapping[str, Mapping[str, Any]], unlike: int | None) -> list[str]:
    """What makes the numbers worthless, in words."""
    faults = [f"with closed gates {unlike} of C2C's answers are not the receiver's."] if unlike else []
    broken = [name for name, line in lines.items() if line["errors"] and line["errors"] == line["answers"]]
    if broken:
        faults.append(f"every question raised an error for {', '.join(broken)}; see predictions.jsonl.")
    return faults


def verdict(by_responder: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """Whether C2C communicated: does it beat itself with another question's cache?

    Args:
        by_responder: predictions of each responder.

    Returns:
        `{"communication": true | false | null, "p_value", "text"}`; null where it was not tested.
    """
    if not {"c2c", "c2c:mismatched"} <= set(by_responder):
        text = "Communication not tested: C2C and its control `mismatched` did not both take part."
        return {"communication": None, "p_value": None, "text": text}
    result = paired(by_responder["c2c"], by_responder["c2c:mismatched"])
    is_shown = result["p_value"] < ALPHA and result["difference"] > 0
    accuracy, spoilt = (summarise(by_responder[name])["accuracy"] for name in ("c2c", "c2c:mismatched"))
    low, high = result["ci95"]
    runs = len({(p.fuser, p.draw) for p in by_responder["c2c:mismatched"]})
    test = "McNemar's exact test" + (f", the largest of {runs} runs" if runs > 1 else "")
    text = (
        f"Communication {'shown' if is_shown else 'not shown'} at p < {ALPHA}: C2C is right on {accuracy:.1%} of "
        f"{result['n']} questions, and with another question's cache on {spoilt:.1%} (difference "
        f"{100 * result['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}; "
        f"{test}: p = {result['p_value']:.2g})."
    )
    if not is_shown:
        text += (
            f" {result['n']} questions that split as these do show a difference of {100 * result['detectable']:.1f} "
            "points in four of five repetitions (at p < 0.05)."
        )
    return {"communication": is_shown, "p_value": result["p_value"], "text": text}


def write_report(report: Mapping[str, Any], directory: Path) -> None:
    """Write `report.json`, wholly or not at all."""
    write_atomically(directory / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
