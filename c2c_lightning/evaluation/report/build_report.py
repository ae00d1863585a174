"""Builds `report.json`, whose schema is versioned, with a verdict as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import (
    closed_gates,
    comparisons,
    grouped,
    oracle,
    overlap,
    paired,
    summarise,
)
from c2c_lightning.evaluation.report.communication import communication
from c2c_lightning.evaluation.report.readability import unreadable_answers

#: Version of the schema of `report.json`; raised when a field is removed or changes its meaning.
REPORT_VERSION = 1

#: Significance level of the verdict.
ALPHA = 0.01


def build_report(
    predictions: Sequence[Prediction], benchmarks: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole report, whose fields `evaluation/README.md` documents.

    `benchmarks` and `run` describe each benchmark (mode, scoring, ...) and the run (fuser, models, versions, ...).
    """
    sections = {}
    for name, known in benchmarks.items():
        section = dict(known) | _section([p for p in predictions if p.benchmark == name])
        sections[name] = section | {"warnings": unreadable_answers(section, run)}
    verdicts = [f"{name}: {section['verdict']['text']}" for name, section in sections.items()]
    return {
        "version": REPORT_VERSION,
        "verdict": " ".join(verdicts),
        "warnings": [f"{name}: {text}" for name, section in sections.items() for text in section["warnings"]],
        "benchmarks": sections,
        "run": dict(run),
    }


def _section(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One benchmark."""
    by_responder = grouped(predictions, "responder")
    communicated = communication(by_responder)
    lines = {name: summarise(answers) | communicated.get(name, {}) for name, answers in by_responder.items()}
    gates = closed_gates(by_responder)
    num_faults = 0 if gates is None else gates["faults"]
    return {
        "responders": lines,
        "comparisons": comparisons(by_responder),
        "oracle": oracle(by_responder),
        "overlap": overlap(by_responder),
        "t2t_to_c2c_seconds": _time_ratio(lines),
        "gates_closed_unlike_receiver": None if gates is None else gates["unlike_receiver"],
        "gates_closed": gates,
        "faults": _faults(lines, num_faults),
        "verdict": verdict(by_responder, num_faults),
    }


def _time_ratio(lines: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Seconds of text-to-text divided by seconds of C2C."""
    t2t, c2c = (lines.get(name, {}).get("seconds_per_answer") for name in ("t2t", "c2c"))
    return None if t2t is None or not c2c else float(t2t / c2c)


def _faults(lines: Mapping[str, Mapping[str, Any]], num_faults: int) -> list[str]:
    """Errors that invalidate the numbers, as text."""
    faults = []
    if num_faults:
        faults.append(f"with closed gates {num_faults} of C2C's answers differ from the unfused receiver's.")
    broken = [name for name, line in lines.items() if line["errors"] and line["errors"] == line["answers"]]
    if broken:
        faults.append(f"every question raised an error for {', '.join(broken)}; see predictions.jsonl.")
    return faults


def verdict(by_responder: Mapping[str, Sequence[Prediction]], num_faults: int = 0) -> dict[str, Any]:
    """Whether C2C communicates: whether it beats C2C with another question's cache; null where it was not tested."""
    untested = {"communication": None, "p_value": None}
    if num_faults:
        text = f"No verdict: {num_faults} answers with closed gates differ from the unfused receiver's, which is a bug."
        return {**untested, "text": text}
    if not {"c2c", "c2c:mismatched"} <= set(by_responder):
        return {**untested, "text": "Communication not tested: the run lacks C2C or its control `mismatched`."}
    # Against the mismatched cache, not the receiver: a fuser's extra capacity alone may beat the receiver.
    result = paired(by_responder["c2c"], by_responder["c2c:mismatched"])
    is_shown = result["p_value"] < ALPHA and result["difference"] > 0
    accuracy, mismatched = (summarise(by_responder[name])["accuracy"] for name in ("c2c", "c2c:mismatched"))
    low, high = result["ci95"]
    runs = len({(p.fuser, p.draw) for p in by_responder["c2c:mismatched"]})
    test = "McNemar's exact test" + (f", the largest of {runs} runs" if runs > 1 else "")
    text = (
        f"Communication {'shown' if is_shown else 'not shown'} at p < {ALPHA}: accuracy of C2C {accuracy:.1%} on "
        f"{result['n']} questions, with another question's cache {mismatched:.1%} (difference "
        f"{100 * result['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}; "
        f"{test}: p = {result['p_value']:.2g})."
    )
    if not is_shown:
        detectable = 100 * result["detectable"]
        text += f" Detectable with {result['n']} questions (power 0.8, p < 0.05): {detectable:.1f} points."
    return {"communication": is_shown, "p_value": result["p_value"], "text": text}
