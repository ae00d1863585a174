"""How much of the receiver's knowledge survives communication, and how much of the sharers' arrives."""

from collections.abc import Mapping, Sequence
from typing import Any

from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import f1_of, is_sharer, scores_of

FLOOR, CEILING = "receiver", "receiver:document"


def is_single(name: str) -> bool:
    """Whether a responder is one model alone, without communication."""
    return name.partition(":")[0] in ("receiver", "sharer")


def is_control(name: str) -> bool:
    """Whether a responder is a content control, which should answer as the receiver does."""
    return name.startswith("c2c:") and not name.startswith("c2c:sharers=")


def communication(by_responder: Mapping[str, Sequence[Prediction]]) -> dict[str, dict[str, Any]]:
    """For each responder that combines models: `kept`, `gained` and `recovery`, where they are defined.

    - `kept`: of the questions that the receiver alone answers right (`kept_of` of them), the fraction answered right.
    - `gained`: of the questions that only a sharer answers right (`gained_of`), the fraction answered right.
    - `recovery`: the gain over the receiver as a fraction of the gain of the receiver that reads the private text
      itself; `f1_recovery` the same of F1, with `scoring: squad`.

    With several fusers or draws, right means the mean score of a question.
    """
    scores = {name: scores_of(answers) for name, answers in by_responder.items()}
    f1 = {name: f1_of(answers) for name, answers in by_responder.items() if any(p.f1 is not None for p in answers)}
    combined = [name for name in scores if not is_single(name)]
    return {
        name: _kept_and_gained(name, scores) | _recovery("recovery", name, scores) | _recovery("f1_recovery", name, f1)
        for name in combined
    }


def _kept_and_gained(name: str, scores: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    receiver, own = scores.get(FLOOR, {}), scores[name]
    sharers = [values for single, values in scores.items() if is_sharer(single)]
    right = [index for index, score in receiver.items() if score >= 0.5 and index in own]
    only_sharer = [
        index
        for index, score in receiver.items()
        if score < 0.5 and index in own and any(values.get(index, 0.0) >= 0.5 for values in sharers)
    ]
    return _fraction("kept", own, right) | _fraction("gained", own, only_sharer)


def _fraction(name: str, scores: Mapping[int, float], questions: Sequence[int]) -> dict[str, Any]:
    if not questions:
        return {}
    return {name: sum(scores[index] for index in questions) / len(questions), f"{name}_of": len(questions)}


def _recovery(field: str, name: str, scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """The recovered part of the distance between floor and ceiling; nothing where the ceiling is not above it."""
    if not {FLOOR, CEILING, name} <= set(scores):
        return {}
    shared = [index for index in scores[name] if index in scores[FLOOR] and index in scores[CEILING]]
    own, floor, ceiling = (sum(scores[who][index] for index in shared) for who in (name, FLOOR, CEILING))
    return {field: (own - floor) / (ceiling - floor)} if ceiling > floor else {}
