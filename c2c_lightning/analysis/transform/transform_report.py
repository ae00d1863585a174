"""The report on a transformation: means over held-out samples with 95 % intervals (bootstrap over samples)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.analysis.statistics import bootstrap_intervals
from c2c_lightning.analysis.transform.entry_mixing import classifier_accuracies, neighbour_shares
from c2c_lightning.analysis.transform.model_pair import PARTS
from c2c_lightning.analysis.transform.sample_scores import KEY_PARTS, SCOPES, SampleScores
from c2c_lightning.analysis.transform.transform_model import MAPS

Summary = dict[str, Any]
"""`mean` and `ci95` of a number, or such a pair for the last layer, for the mean over layers and for each layer."""

MixingScores = dict[tuple[str, str, int], tuple[list[float], list[float]]]
"""Neighbour shares and classifier accuracies of each sample, by map, part and index of a pair of layers."""


@dataclass(frozen=True)
class ReportFacts:
    """What a report says of its run.

    Attributes:
        receiver: name of the receiver.
        sharer: name of the sharer.
        layers: pairs of a receiver layer and its sharer layer.
        steps: optimizer steps.
        train_tokens: aligned tokens that the maps were trained on.
        perplexity: of the t-SNE picture.
        seed: of training and measurement.
    """

    receiver: str
    sharer: str
    layers: Sequence[tuple[int, int]]
    steps: int
    train_tokens: int
    perplexity: float
    seed: int


def mixing_scores(
    scores: SampleScores, num_layers: int, seed: int, track: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> MixingScores:
    """Neighbours and classifier for every map, part and pair of layers.

    Args:
        scores: held-out samples.
        num_layers: number of pairs of layers.
        seed: of the classifier's folds.
        track: shows progress over the places.
    """
    found: MixingScores = {}
    for name, part, n in track(list(product(MAPS, PARTS, range(num_layers)))):
        pair = scores.points[name, part, n], scores.points["receiver", part, n]
        found[name, part, n] = neighbour_shares(*pair), classifier_accuracies(*pair, seed)
    return found


def transform_report(scores: SampleScores, mixing: MixingScores, facts: ReportFacts) -> dict[str, Any]:
    """Everything that was measured, as plain data."""
    maps: dict[str, Any] = {}
    for name in MAPS:
        of_parts = {part: _entry_scores(scores, mixing, name, part, len(facts.layers)) for part in PARTS}
        attention = {
            part: layer_summary([scores.attention[name, part, n] for n in range(len(facts.layers))])
            for part in KEY_PARTS
        }
        maps[name] = {"entries": of_parts, "attention": attention, "loss_change": _loss_changes(scores, name)}
    return {
        "version": 1,
        **vars(facts),
        "layers": [list(pair) for pair in facts.layers],
        "samples": len(scores),
        "tokens": int(scores.tokens.sum()),
        "response_tokens": int(scores.response_tokens.sum()),
        "receiver_loss": summaries(_per_token(scores, scores.receiver_loss)[:, None])[0],
        "maps": maps,
    }


def layer_summary(by_layer: Sequence[Tensor]) -> Summary:
    """Last layer, mean over layers and all layers, of one number per layer and sample."""
    columns = torch.stack([values.double() for values in by_layer], 1)  # (n, layers)
    *layers, average = summaries(torch.cat([columns, columns.mean(1, keepdim=True)], 1))
    return {"last": layers[-1], "mean": average, "layers": layers}


def summaries(columns: Tensor) -> list[Summary]:
    """Mean and interval of each column of (n, columns)."""
    intervals = bootstrap_intervals(columns.double().T.tolist())
    means = columns.double().mean(0).tolist()
    return [{"mean": mean, "ci95": list(interval)} for mean, interval in zip(means, intervals, strict=True)]


def _entry_scores(scores: SampleScores, mixing: MixingScores, name: Any, part: Any, num_layers: int) -> dict[str, Any]:
    places = [(name, part, n) for n in range(num_layers)]
    # In units of the error of the mean: 1 is the floor.
    floors = [scores.errors["mean", part, n].mean() for n in range(num_layers)]
    relative = [scores.errors[place] / floor for place, floor in zip(places, floors, strict=True)]
    neighbours, classifier = zip(*(mixing[place] for place in places), strict=True)
    return {
        "relative_error": layer_summary(relative),
        "cosine": layer_summary([scores.cosines[place].mean(1) for place in places]),
        "cosine_per_head": [summaries(scores.cosines[place]) for place in places],
        "neighbours": layer_summary([torch.tensor(values) for values in neighbours]),
        "classifier": layer_summary([torch.tensor(values) for values in classifier]),
    }


def _loss_changes(scores: SampleScores, name: Any) -> dict[str, Any]:
    """Nats per response token that replaced entries cost the receiver."""
    return {
        part: {
            scope: summaries(_per_token(scores, scores.losses[name, part, scope] - scores.receiver_loss)[:, None])[0]
            for scope in SCOPES
        }
        for part in KEY_PARTS
    }


def _per_token(scores: SampleScores, summed: Tensor) -> Tensor:
    """Values whose mean over samples is the mean over response tokens."""
    return summed.double() / scores.response_tokens.double().mean()
