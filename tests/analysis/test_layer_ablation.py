"""Which layers of a fuser are removed by measurement."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from c2c_lightning.analysis import layer_ablation
from c2c_lightning.analysis.layer_ablation import ablate, pruned_model
from c2c_lightning.analysis.row_scores import RowScore, row_score
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.pruning import fused_layers
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair


@pytest.fixture
def model() -> C2CModel:
    torch.manual_seed(0)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0)
    fused = C2CModel(load_frozen(tiny_pair("qwen3", 0)), [load_frozen(tiny_pair("qwen2", 1))], config).eval()
    fused.fuser.force_gates(is_open=True)
    return fused


def test_accuracy_is_that_of_greedy_decoding(model: C2CModel) -> None:
    ids = torch.randint(3, 300, (4, 9), generator=torch.Generator().manual_seed(3))
    prompt = PromptBatch.shared(ids)
    answers = model.generate(prompt, max_new_tokens=3, do_sample=False, eos_token_id=None)[:, 9:]
    wrong = answers.clone()
    wrong[0, 1] += 1
    mask = torch.ones_like(answers, dtype=torch.bool)
    assert row_score(model, [TrainingBatch(prompt, answers, mask)]).accuracy == 1.0
    score = row_score(model, [TrainingBatch(prompt, wrong, mask)])
    assert score.accuracy == 0.75
    output = model(prompt, wrong, mask)
    assert score.log_likelihood == pytest.approx(-float(output.loss), rel=1e-4)
    mask[0, 1:] = False
    assert row_score(model, [TrainingBatch(prompt, wrong, mask)]).accuracy == 1.0, "unsupervised tokens do not count"


#: Accuracy without each layer: without 0 it rises, without 1 it falls most.
WITHOUT = {0: 0.6, 1: 0.1, 2: 0.5, 3: 0.3}


@pytest.mark.parametrize(
    ("keep", "left"), [(None, [1, 2, 3]), (3, [1, 2, 3]), (2, [1, 3]), (1, [1])], ids=["all", "3", "2", "1"]
)
def test_the_rule(model: C2CModel, keep: int | None, left: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def score(measured: C2CModel, batches: Iterable[Any]) -> RowScore:
        missing = {0, 1, 2, 3} - set(fused_layers(measured.fuser)[0])
        return RowScore(WITHOUT[missing.pop()] if missing else 0.5, -1.0)

    monkeypatch.setattr(layer_ablation, "row_score", score)
    calls: list[None] = []
    found = ablate(model, [], keep, lambda: calls.append(None))
    assert fused_layers(pruned_model(model, found.dropped).fuser) == [left]
    assert len(calls) == 4


def test_closed_layers_are_dropped_without_measuring(model: C2CModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_ablation, "row_score", lambda measured, batches: RowScore(0.5, -1.0))
    (_, _, keys, values), *_ = model.fuser.gates()
    with torch.no_grad():
        keys.logit[2] = values.logit[2] = 0.0
    found = ablate(model, [])
    assert found.dropped == [{2}]
    assert set(found.alone) == {(0, 0), (0, 1), (0, 3)}


def test_keeping_no_layer_is_refused(model: C2CModel) -> None:
    with pytest.raises(FuserConfigError, match="0 layers cannot be kept"):
        ablate(model, [], keep=0)
