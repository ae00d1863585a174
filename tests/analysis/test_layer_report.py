"""The part of each unit, and the pruning list."""

import pytest
import torch

from c2c_lightning.analysis.fusion_mask import FusedUnit, layer_units
from c2c_lightning.analysis.layer_report import (
    NONE,
    WHOLE,
    layer_report,
    measure,
    pruning_list,
    pruning_masks,
    unit_masks,
)
from c2c_lightning.analysis.row_scores import RowScores, score_batch
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.model.c2c import C2CModel
from tests.analysis.test_fusion_mask import build


@pytest.fixture(scope="module")
def model() -> C2CModel:
    fused = build()
    (_, _, keys, values), *_ = fused.fuser.gates()
    keys.logit.data[1] = values.logit.data[1] = -1.0
    return fused


def batch() -> TrainingBatch:
    ids = torch.randint(3, 300, (3, 6), generator=torch.Generator().manual_seed(2))
    return TrainingBatch(PromptBatch.shared(ids), ids[:, :2], torch.ones(3, 2, dtype=torch.bool))


def test_closed_layers_are_not_measured(model: C2CModel) -> None:
    masks = unit_masks(model.fuser, layer_units(model.fuser))
    assert set(masks) == {WHOLE, NONE} | {f"{word} layer {n}" for word in ("close", "open") for n in (0, 2, 3)}


def test_measured_scores_are_those_of_separate_passes(model: C2CModel) -> None:
    units = layer_units(model.fuser)
    scores = measure(model, batch(), unit_masks(model.fuser, units))
    assert scores[WHOLE] == score_batch(model, batch())
    assert scores[NONE].log_likelihood == pytest.approx(score_batch(model, batch(), None, ()).log_likelihood, rel=1e-5)
    report = layer_report(model.fuser, units, scores)
    closed = {effect.unit.layer: effect for effect in report.effects}
    assert not closed[1].is_open
    assert closed[1].closed.loss == closed[1].opened.loss == 0.0
    loss = -sum(scores["close layer 2"].log_likelihood) / 6 + sum(scores[WHOLE].log_likelihood) / 6
    assert closed[2].closed.loss == pytest.approx(loss)
    low, high = closed[2].closed.loss_ci95
    assert low <= loss <= high
    assert 1 not in [layer for _, layer in report.removal_order]


def scored(right: list[bool], nats: float) -> RowScores:
    return RowScores(right, [-nats] * len(right), [1] * len(right))


@pytest.mark.parametrize(
    ("accuracy_drop", "loss_increase", "dropped"),
    [(0.0, 0.05, [[1, 2]]), (0.0, 0.01, [[1]]), (0.5, 9.0, [[0, 1, 2]])],
    ids=["loss within", "loss above", "everything allowed"],
)
def test_layers_are_removed_while_their_joint_removal_does_not_hurt(
    model: C2CModel, accuracy_drop: float, loss_increase: float, dropped: list[list[int]]
) -> None:
    order = [(0, 2), (0, 0), (0, 3)]
    assert set(pruning_masks(model.fuser, order)) == {"without 1", "without 2"}
    scores = {"without 1": scored([True, True], 0.12), "without 2": scored([True, False], 0.3)}
    whole = scored([True, True], 0.1)
    found = pruning_list(model.fuser, order, scores, whole, accuracy_drop, loss_increase)
    assert found.drop_layers == dropped
    assert [step.layer for step in found.steps] == order[:-1]


def test_the_masks_of_a_removal_order_accumulate(model: C2CModel) -> None:
    masks = pruning_masks(model.fuser, [(0, 2), (0, 0), (0, 3)])
    gone = [sorted(set((~mask[0]).nonzero()[:, 0].tolist())) for mask in masks.values()]
    assert gone == [[2], [0, 2]]
    assert FusedUnit(0, 2).name == "layer 2"
