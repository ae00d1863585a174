"""The part of each layer, gate and head of a fuser in the answers: each closed alone, and each open alone.

A fuser with redundant layers loses little by any one of them, so both directions are needed: closing a unit shows what
only it contributes, opening it alone what it contributes by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from c2c_lightning.analysis.fusion_mask import (
    FusedUnit,
    HeadMask,
    full_masks,
    gate_units,
    head_units,
    layer_units,
    masked_heads,
)
from c2c_lightning.analysis.gate_report import PARTS
from c2c_lightning.analysis.row_scores import RowScore, RowScores, score_batch
from c2c_lightning.analysis.statistics import bootstrap_intervals
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.pruning import closed_layers
from c2c_lightning.model.c2c import C2CModel

UnitKind = Literal["layer", "gate", "head"]
UNITS: dict[str, Callable[[Fuser], list[FusedUnit]]] = {"layer": layer_units, "gate": gate_units, "head": head_units}

WHOLE, NONE = "whole", "none"
Masks = Mapping[str, Sequence[HeadMask]]
"""What is fused, by the name of a measurement."""

Scores = Mapping[str, RowScores]
"""Scores of the same rows, by the name of a measurement."""


@dataclass(frozen=True)
class Change:
    """A change against another measurement on the same rows, with bootstrap intervals over the rows.

    Attributes:
        accuracy: of the share of rows whose response greedy decoding gives exactly.
        loss: in nats per response token.
    """

    accuracy: float
    accuracy_ci95: tuple[float, float]
    loss: float
    loss_ci95: tuple[float, float]


@dataclass(frozen=True)
class UnitEffect:
    """The part of one unit.

    Attributes:
        unit: the layer, gate or head.
        is_open: whether a gate of it is open in the trained fuser; nothing of a closed unit is fused anyway.
        closed: change of the whole fuser without it.
        opened: change of the unfused receiver with it alone.
    """

    unit: FusedUnit
    is_open: bool
    closed: Change
    opened: Change


@dataclass(frozen=True)
class LayerReport:
    """The parts of all units.

    Attributes:
        rows: number of rows.
        whole: score of the whole fuser.
        none: score with nothing fused, in the same passes.
        effects: of all units.
    """

    rows: int
    whole: RowScore
    none: RowScore
    effects: list[UnitEffect]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        effects = [{"name": effect.unit.name, **asdict(effect)} for effect in self.effects]
        return {"rows": self.rows, "whole": asdict(self.whole), "none": asdict(self.none), "units": effects}

    @property
    def removal_order(self) -> list[tuple[int, int]]:
        """(sharer, layer) of the open layers, the least missed first: by accuracy, then by loss."""
        layers = [e for e in self.effects if e.unit.part is None and e.unit.head is None and e.is_open]
        layers.sort(key=lambda e: (-e.closed.accuracy, e.closed.loss))
        return [(e.unit.sharer, e.unit.layer) for e in layers]


def unit_masks(fuser: Fuser, units: Sequence[FusedUnit]) -> dict[str, list[HeadMask]]:
    """The masks of all measurements: whole, none, and each unit that has an open gate, closed and opened."""
    masks = {WHOLE: full_masks(fuser, True), NONE: full_masks(fuser, False)}
    for unit in units:
        if is_open(fuser, unit):
            opened = unit.mask(fuser)
            masks[f"close {unit.name}"] = [~mask for mask in opened]
            masks[f"open {unit.name}"] = opened
    return masks


def is_open(fuser: Fuser, unit: FusedUnit) -> bool:
    """Whether a gate of a unit is open; layers without gates are."""
    logits = fuser.gate_logits()[unit.sharer, :, unit.layer]
    parts = range(2) if unit.part is None else [PARTS.index(unit.part)]
    return any(not logits[part] <= 0 for part in parts)


def measure(
    model: C2CModel, batch: TrainingBatch, masks: Masks, done: Callable[[], None] = lambda: None
) -> dict[str, RowScores]:
    """The scores of a batch in all measurements; the sharers run once.

    Args:
        model: the fused model, in evaluation mode.
        batch: the rows.
        masks: what is fused in each measurement.
        done: called after each.
    """
    batch, scores = batch.to(model.receiver.device), {}
    sharer_kv = model.prefill_sharers(batch.prompt)
    for name, mask in masks.items():
        with masked_heads(model.fuser, mask):
            scores[name] = score_batch(model, batch, sharer_kv)
        done()
    return scores


def changes(scores: Scores, base: Scores) -> dict[str, Change]:
    """The changes of measurements against others, pair by pair of one name, on the same resamples of the rows."""
    names = list(scores)
    accuracy, loss = [], []
    for name in names:
        mine, other = scores[name], base[name]
        tokens = sum(mine.tokens) / max(len(mine.tokens), 1)
        accuracy.append([float(a) - float(b) for a, b in zip(mine.right, other.right, strict=True)])
        # Divided by the mean number of tokens: the mean over rows is then the change per token.
        loss.append([(b - a) / tokens for a, b in zip(mine.log_likelihood, other.log_likelihood, strict=True)])
    tables = zip(accuracy, bootstrap_intervals(accuracy), loss, bootstrap_intervals(loss), strict=True)
    return {
        name: Change(sum(right) / len(right), right_ci, sum(nats) / len(nats), nats_ci)
        for name, (right, right_ci, nats, nats_ci) in zip(names, tables, strict=True)
    }


def layer_report(fuser: Fuser, units: Sequence[FusedUnit], scores: Scores) -> LayerReport:
    """The report of measurements with `unit_masks`."""
    opened = [unit for unit in units if is_open(fuser, unit)]
    # A unit whose gates are closed changes nothing.
    closed = {unit.name: scores.get(f"close {unit.name}", scores[WHOLE]) for unit in units}
    alone = {unit.name: scores.get(f"open {unit.name}", scores[NONE]) for unit in units}
    without = changes(closed, dict.fromkeys(closed, scores[WHOLE]))
    single = changes(alone, dict.fromkeys(alone, scores[NONE]))
    effects = [UnitEffect(unit, unit in opened, without[unit.name], single[unit.name]) for unit in units]
    return LayerReport(len(scores[WHOLE].right), scores[WHOLE].mean, scores[NONE].mean, effects)


@dataclass(frozen=True)
class PruningStep:
    """One more layer removed.

    Attributes:
        layer: sharer and receiver layer.
        change: of the fuser without this layer and all before it, against the whole.
    """

    layer: tuple[int, int]
    change: Change


@dataclass(frozen=True)
class PruningList:
    """Layers whose removal, all together, does not hurt.

    Attributes:
        steps: all open layers but the last, in the order of removal.
        removed: how many of the steps do not hurt.
        drop_layers: for each sharer its layers: those of the steps, and those whose gates are closed.
    """

    steps: list[PruningStep]
    removed: int
    drop_layers: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def pruning_masks(fuser: Fuser, order: Sequence[tuple[int, int]]) -> dict[str, list[HeadMask]]:
    """The masks without the first layer of an order, without the first two, and so on; one layer stays."""
    masks, kept = {}, full_masks(fuser, True)
    for count, (sharer, layer) in enumerate(order[:-1], start=1):
        kept = [mask.clone() for mask in kept]
        kept[sharer][layer] = False
        masks[f"without {count}"] = kept
    return masks


def pruning_list(
    fuser: Fuser,
    order: Sequence[tuple[int, int]],
    scores: Scores,
    whole: RowScores,
    max_accuracy_drop: float,
    max_loss_increase: float,
) -> PruningList:
    """The longest beginning of a removal order that stays within both bounds at every step.

    Args:
        fuser: the fuser.
        order: (sharer, layer) in the order of removal.
        scores: measurements with `pruning_masks`.
        whole: those of the whole fuser.
        max_accuracy_drop: allowed fall of the accuracy, in [0, 1].
        max_loss_increase: allowed rise of the loss, in nats per response token.
    """
    found = changes(scores, dict.fromkeys(scores, whole))
    steps = [PruningStep(layer, found[f"without {n}"]) for n, layer in enumerate(order[:-1], start=1)]
    hurts = [-s.change.accuracy > max_accuracy_drop or s.change.loss > max_loss_increase for s in steps]
    removed = hurts.index(True) if True in hurts else len(steps)
    dropped = closed_layers(fuser)
    for step in steps[:removed]:
        dropped[step.layer[0]].add(step.layer[1])
    return PruningList(steps, removed, [sorted(layers) for layers in dropped])
