"""The report: `report.json`, whose schema is versioned, and a verdict in words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.evaluation.predictions import Prediction, write_atomically
from c2c_lightning.evaluation.statistics import mean_and_spread
from c2c_lightning.evaluation.summary import comparisons, oracle, overlap, paired, summarise, unlike_receiver

#: Version of the schema of `report.json`; raised when a field changes its meaning or goes.
REPORT_VERSION = 1

#: The level of the verdict.
ALPHA = 0.01


def build_report(
    predictions: Sequence[Prediction], benchmarks: Mapping[str, Mapping[str, Any]], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that an evaluation has to say.

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
    return {
        "responders": {name: summarise(answers) for name, answers in by_responder.items()},
        "comparisons": comparisons(by_responder),
        "oracle": oracle(by_responder),
        "overlap": overlap(by_responder),
        "gates_closed_unlike_receiver": unlike_receiver(by_responder),
        "verdict": verdict(by_responder),
    }


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
    text = (
        f"Communication {'shown' if is_shown else 'not shown'} at p < {ALPHA}: C2C is right on {accuracy:.1%} of "
        f"{result['n']} questions, and with another question's cache on {spoilt:.1%} (difference "
        f"{100 * result['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}; McNemar's "
        f"exact test p = {result['p_value']:.2g})."
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


def combine_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over several runs: fuser seeds or checkpoints.

    Args:
        reports: contents of their `report.json`.

    Returns:
        `{benchmark: {responder: {"mean", "spread", "runs"}}}` for what is in all of them.
    """
    combined: dict[str, Any] = {}
    for benchmark, section in reports[0]["benchmarks"].items():
        for responder in section["responders"]:
            lines = [r["benchmarks"].get(benchmark, {}).get("responders", {}).get(responder) for r in reports]
            if all(lines):
                values = [line["accuracy"] for line in lines]
                combined.setdefault(benchmark, {})[responder] = {**mean_and_spread(values), "runs": values}
    return combined
