"""Aggregates predictions: each responder, pairs of responders, and sets of right answers."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from statistics import stdev
from typing import Any

from c2c_lightning.analysis.statistics import (
    bootstrap_interval,
    calibration_error,
    compare,
    quantiles,
    wilson_interval,
)
from c2c_lightning.evaluation.prediction_log import Prediction

#: Tolerance of log-probabilities from different orders of summation in bfloat16 (eight bits).
_ROUNDING = 0.02

TOKEN_COUNTS = ("prompt_tokens", "new_tokens", "sharer_tokens", "message_tokens")

ByResponder = Mapping[str, Sequence[Prediction]]


def grouped(predictions: Iterable[Prediction], *attributes: str) -> dict[Any, list[Prediction]]:
    """Predictions by the value of an attribute (a tuple for several), in the order of their first appearance."""
    groups: dict[Any, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[attrgetter(*attributes)(prediction)].append(prediction)
    return groups


def is_sharer(name: str) -> bool:
    """Whether a responder is a sharer that reads the private text, if there is any."""
    return name.partition(":")[0] == "sharer" and name != "sharer:no_document"


def scores_of(predictions: Sequence[Prediction]) -> dict[int, float]:
    """Score of each question, by its row; the mean over fusers and draws where there are several."""
    return {index: _accuracy(answers) for index, answers in grouped(predictions, "index").items()}


def f1_of(predictions: Sequence[Prediction]) -> dict[int, float]:
    """F1 of each question, by its row; the mean over fusers and draws, an error counts as 0."""
    return {index: _mean([p.f1 or 0.0 for p in answers]) for index, answers in grouped(predictions, "index").items()}


def summarise(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """One responder's entry in `report.json`, from all its answers to one benchmark."""
    # Over questions: draws and fusers of one question are no independent samples.
    scores = list(scores_of(predictions).values())
    n = len(scores)
    is_binary = all(score in (0.0, 1.0) for score in scores)
    interval = wilson_interval(float(sum(scores)), n) if is_binary else bootstrap_interval(scores)
    line: dict[str, Any] = {
        "accuracy": sum(scores) / n,
        "n": n,
        "answers": len(predictions),
        "ci95": list(interval),
        "seconds_per_answer": _mean([p.seconds for p in predictions]),
        **{name: _mean([getattr(p, name) for p in predictions]) for name in TOKEN_COUNTS},
        **_rows("unparsed", [p for p in predictions if p.extracted is None and p.error is None]),
        **_rows("errors", [p for p in predictions if p.error is not None]),
        **_counts(predictions),
    }
    line |= _cost(predictions) | _runs_apart(predictions) | _sent(predictions)
    return line | _control(predictions) | _confidence(predictions) | _f1(predictions) | _subjects(predictions)


def _counts(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Numbers of answers with a property, where there are any."""
    names = ("begins_with_choice", "shifted_positions")
    counts = {name: sum(getattr(p, name) for p in predictions) for name in names}
    return {name: count for name, count in counts.items() if count}


def _rows(name: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The number of answers that count as wrong for one reason, and the rows of their questions."""
    rows = {f"{name}_rows": sorted({p.index for p in predictions})} if predictions else {}
    return {name: len(predictions), **rows}


def _mean(values: Sequence[float | int]) -> float:
    return sum(values) / len(values)


def _accuracy(predictions: Sequence[Prediction]) -> float:
    return _mean([prediction.score for prediction in predictions])


def _cost(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Median and 90th percentile of the seconds of each phase and of the answer, of tokens, and of memory."""
    answered = [p for p in predictions if p.error is None]
    if not answered:
        return {}
    phases: dict[str, list[float]] = defaultdict(list)
    for prediction in answered:
        for name, seconds in (prediction.phases or {}).items():
            phases[name].append(seconds)
    phases["total"] = [p.seconds for p in answered]
    line = {
        "latency": {name: quantiles(values) for name, values in phases.items()},
        "tokens": {name: quantiles([getattr(p, name) for p in answered]) for name in TOKEN_COUNTS},
    }
    memory = [p.peak_memory for p in answered if p.peak_memory is not None]
    return line | ({"peak_memory_bytes": quantiles(memory)} if memory else {})


def _sent(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Mean bytes between the models, and the fraction of likelihood-scored questions that would be written right."""
    sent = [p.bytes_sent for p in predictions if p.error is None]
    written = [p.written for p in predictions if p.written is not None]
    line = {"bytes_per_prompt": _mean(sent)} if any(sent) else {}
    return line | ({"written": _mean(written)} if written else {})


def _runs_apart(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Accuracy of each fuser and each draw, where there are several, and the spread over fusers."""
    line: dict[str, Any] = {}
    by_fuser, by_draw = (
        [_accuracy(answers) for _, answers in sorted(grouped(predictions, name).items())] for name in ("fuser", "draw")
    )
    if len(by_fuser) > 1:
        line = {"accuracy_by_fuser": by_fuser, "spread": stdev(by_fuser)}
    return line | ({"accuracy_by_draw": by_draw} if len(by_draw) > 1 else {})


def _control(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Proportion of answers that follow the donor."""
    followed = [p.follows_donor for p in predictions if p.follows_donor is not None]
    return {"follows_donor": _mean(followed)} if followed else {}


def _confidence(predictions: Sequence[Prediction]) -> dict[str, Any]:
    known = [(p.confidence, p.correct) for p in predictions if p.confidence is not None]
    if not known:
        return {}
    confidences, correct = zip(*known, strict=True)
    return {"calibration_error": calibration_error(confidences, correct), "confidence": _mean(confidences)}


def _f1(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Mean F1 over questions and its bootstrap interval, with `scoring: squad`; an error counts as 0."""
    if all(p.f1 is None for p in predictions):
        return {}
    means = list(f1_of(predictions).values())
    return {"f1": _mean(means), "f1_ci95": list(bootstrap_interval(means))}


def _subjects(predictions: Sequence[Prediction]) -> dict[str, Any]:
    by_subject = sorted(grouped(predictions, "subject").items())
    lines = {s: {"accuracy": _accuracy(answers), "n": len(answers), **_f1(answers)} for s, answers in by_subject}
    return {"by_subject": lines} if len(lines) > 1 else {}


def comparisons(by_responder: ByResponder) -> list[dict[str, Any]]:
    """Paired comparisons: C2C with all others, and all others with the receiver and with T2T."""
    names = list(by_responder)
    pairs = [("c2c", name) for name in names if "c2c" in names and name != "c2c"]
    pairs += [
        (name, other) for other in ("receiver", "t2t") if other in names for name in names if name not in (other, "c2c")
    ]
    return [{"a": a, "b": b, **paired(by_responder[a], by_responder[b])} for a, b in pairs]


def paired(a: Sequence[Prediction], b: Sequence[Prediction]) -> dict[str, Any]:
    """Two responders on the questions that both answered.

    With several fusers or draws the difference is that of the means, and the p value the largest of all single runs; a
    run whose difference has the opposite sign counts as p = 1.
    """
    first, second = scores_of(a), scores_of(b)
    shared = [index for index in first if index in second]
    line = compare([first[index] for index in shared], [second[index] for index in shared])
    # The largest p: the weakest of several fusers or draws decides, without a correction for multiple tests.
    runs = _matched_runs(a, b)
    if len(runs) > 1:
        tests = [paired(*run) for run in runs]
        line["p_value"] = max(t["p_value"] if t["difference"] * line["difference"] > 0 else 1.0 for t in tests)
    return line


def _matched_runs(
    a: Sequence[Prediction], b: Sequence[Prediction]
) -> list[tuple[Sequence[Prediction], Sequence[Prediction]]]:
    """All pairs of a run of the first and a run of the second; of two fused responders only runs with equal fusers."""
    mine, theirs = (grouped(predictions, "fuser", "draw") for predictions in (a, b))
    have_fusers = all(len({fuser for fuser, _ in runs}) > 1 for runs in (mine, theirs))
    pairs = [(one, other) for one in mine for other in theirs if not have_fusers or one[0] == other[0]]
    return [(mine[one], theirs[other]) for one, other in pairs]


def oracle(by_responder: ByResponder) -> dict[str, Any]:
    """Accuracy of a perfect router: right if any of the single models is right."""
    singles = [name for name in by_responder if name == "receiver" or is_sharer(name)]
    if len(singles) < 2:
        return {}
    scores = [scores_of(by_responder[name]) for name in singles]
    best = [max(s[index] for s in scores) for index in scores[0] if all(index in s for s in scores)]
    return {"of": singles, "accuracy": sum(best) / len(best), "n": len(best)}


def overlap(by_responder: ByResponder) -> dict[str, int]:
    """Number of questions that exactly a set of responders answers right (the regions of a Venn diagram)."""
    present = [name for name in ("receiver", "sharer", "c2c") if name in by_responder]
    if len(present) < 2:
        return {}
    right = {name: {i for i, score in scores_of(by_responder[name]).items() if score >= 0.5} for name in present}
    questions = {p.index for predictions in by_responder.values() for p in predictions}
    regions = Counter("+".join(name for name in present if index in right[name]) for index in questions)
    sets = ["+".join(names) for size in range(1, len(present) + 1) for names in combinations(present, size)]
    return {region: regions[region] for region in sets} | {"none": regions[""]}


def closed_gates(by_responder: ByResponder) -> dict[str, int] | None:
    """Compares C2C with closed gates with the bare receiver; None if one of them is missing.

    Texts are compared exactly, log-probabilities up to rounding. `faults` are answers that differ from the same passes
    without any sharer; the other causes are the shifted positions of released token alignments, and the rounding of
    several prefill passes instead of one.
    """
    if not {"receiver", "c2c:gates_closed"} <= set(by_responder):
        return None
    # An error (a prompt too long for one of the two) says nothing about the gates.
    alone = {p.index: p for p in by_responder["receiver"] if p.error is None}
    closed = [p for p in by_responder["c2c:gates_closed"] if p.error is None and p.index in alone]
    unlike = [p for p in closed if not _is_same(p, alone[p.index])]
    causes = Counter(_cause(p) for p in unlike)
    return {
        "unlike_receiver": len(unlike),
        "released_positions": causes["released_positions"],
        "rounding": causes["rounding"],
        "faults": causes["faults"] + sum(p.matches_unfused is False for p in closed if p not in unlike),
    }


def _cause(prediction: Prediction) -> str:
    """Why an answer with closed gates differs from the bare receiver's."""
    if prediction.matches_unfused is False:
        return "faults"
    if prediction.shifted_positions:
        return "released_positions"
    return "rounding" if prediction.matches_unfused else "faults"


def _is_same(one: Prediction, other: Prediction) -> bool:
    if one.log_probabilities is None or other.log_probabilities is None:
        return one.output == other.output
    pairs = zip(one.log_probabilities, other.log_probabilities, strict=True)
    return all(math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for a, b in pairs)
