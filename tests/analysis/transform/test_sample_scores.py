"""Scores of a known map: the identity on a model paired with itself, and its negative."""

import pytest
import torch

from c2c_lightning.analysis.transform.entry_map import EntryMapConfig
from c2c_lightning.analysis.transform.model_pair import PARTS, ModelPair
from c2c_lightning.analysis.transform.sample_scores import KEY_PARTS, SCOPES, AllMaps, SampleScores, score_batch
from c2c_lightning.analysis.transform.transform_model import MAPS, TransformModel
from c2c_lightning.analysis.transform.transform_report import ReportFacts, mixing_scores, transform_report
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.analysis.transform.pairs import chat_batch, tiny_model_pair
from tests.tiny import tiny_model, tiny_tokenizer


def self_pair() -> ModelPair:
    lm = load_frozen((tiny_model("llama"), tiny_tokenizer()))
    return ModelPair(lm, lm, [(0, 0), (1, 1)])


def scores_of(pair: ModelPair, factors: dict[str, float]) -> tuple[SampleScores, TrainingBatch]:
    model = TransformModel(pair, EntryMapConfig(hidden_dim=4)).eval()
    maps = {name: {part: [lambda x, f=f: x * f] * len(pair.layers) for part in PARTS} for name, f in factors.items()}
    batch = chat_batch(pair)
    found: AllMaps = maps  # type: ignore[assignment]
    return score_batch(model, found, batch, torch.Generator().manual_seed(0)), batch


def test_the_identity_is_perfect_and_the_negative_is_not() -> None:
    scores, batch = scores_of(self_pair(), {"mlp": 1.0, "ridge": -1.0})
    for part in PARTS:
        for n in range(2):
            assert scores.errors["mlp", part, n].max() < 1e-8
            assert torch.allclose(scores.cosines["mlp", part, n], torch.ones(3, 4), atol=1e-5)
            assert torch.allclose(scores.cosines["ridge", part, n], -torch.ones(3, 4), atol=1e-5)
    for part in KEY_PARTS:
        assert torch.allclose(scores.attention["mlp", part, 1], torch.ones(3), atol=1e-4)
        assert scores.attention["ridge", part, 1].max() < 0.9
        for scope in SCOPES:
            assert torch.allclose(scores.losses["mlp", part, scope], scores.receiver_loss, atol=1e-4)
            assert (scores.losses["ridge", part, scope] - scores.receiver_loss).abs().min() > 1e-3
    assert scores.response_tokens.tolist() == batch.response_mask.sum(1).tolist()


def test_the_receivers_loss_is_that_of_the_fused_model_without_sharers() -> None:
    pair = tiny_model_pair()
    scores, batch = scores_of(pair, {})
    model = C2CModel(pair.receiver, [pair.sharer], FuserConfig(hidden_dim=8, intermediate_dim=8)).eval()
    expected = float(model.response_loss(batch, active_sharers=()))
    assert float(scores.receiver_loss.sum()) == pytest.approx(expected, rel=1e-5)


def test_scores_of_a_row_do_not_depend_on_its_batch() -> None:
    pair = self_pair()
    whole, batch = scores_of(pair, {"mlp": 0.5})
    model = TransformModel(pair, EntryMapConfig(hidden_dim=4)).eval()
    maps: AllMaps = {"mlp": {part: [lambda x: x * 0.5] * 2 for part in PARTS}}
    row = torch.tensor([1])
    alone = TrainingBatch(batch.prompt.select(row), batch.response_ids[row], batch.response_mask[row])
    one = score_batch(model, maps, alone, torch.Generator())
    for field in ("errors", "cosines", "attention", "losses", "pooled"):
        for place, values in getattr(one, field).items():
            assert torch.allclose(values[0], getattr(whole, field)[place][1], atol=1e-4), (field, place)


def test_points_are_entries_of_one_token_of_their_row() -> None:
    pair = self_pair()
    scores, batch = scores_of(pair, {})
    entries = pair.entries(batch.prompt)
    for row in range(3):
        mine = entries.receiver["values"][1].flatten(1)[entries.tokens.row == row]
        assert (mine == scores.points["receiver", "values", 1][row]).all(1).any()
        assert torch.allclose(scores.pooled["receiver", "values"][row], mine.mean(0), atol=1e-5)


def test_rows_without_aligned_tokens_are_left_out() -> None:
    pair = self_pair()
    batch = chat_batch(pair)
    index = batch.prompt.sharers[0].index.clone()
    index[1] = -1
    sharer = type(batch.prompt.sharers[0])(
        batch.prompt.sharers[0].input_ids, batch.prompt.sharers[0].mask, batch.prompt.sharers[0].positions, index
    )
    some = TrainingBatch(PromptBatch(batch.prompt.receiver, (sharer,)), batch.response_ids, batch.response_mask)
    model = TransformModel(pair, EntryMapConfig(hidden_dim=4)).eval()
    maps: AllMaps = {"mlp": {part: [lambda x: x] * 2 for part in PARTS}}
    joined = SampleScores.join([score_batch(model, maps, some, torch.Generator())])
    assert len(joined) == 2
    assert all(bool(torch.isfinite(values).all()) for values in joined.points.values())


def test_the_mean_is_the_unit_of_errors_in_the_report() -> None:
    pair = tiny_model_pair()
    model = TransformModel(pair, EntryMapConfig(hidden_dim=4)).eval()
    batch = chat_batch(pair)
    model.measure_scales([batch.prompt], 1)
    model.loss(pair.entries(batch.prompt), add_moments=True)
    one = score_batch(model, model.maps(), batch, torch.Generator().manual_seed(0))
    scores = SampleScores.join([one] * 4)
    facts = ReportFacts("receiver", "sharer", pair.layers, 1, 9, 5.0, 0)
    report = transform_report(scores, mixing_scores(scores, len(pair.layers), 0), facts)
    for name in MAPS:
        entries = report["maps"][name]["entries"]
        for part in PARTS:
            found = entries[part]["relative_error"]
            assert found["last"]["ci95"][0] <= found["last"]["mean"] <= found["last"]["ci95"][1]
            assert len(found["layers"]) == len(pair.layers)
    assert report["maps"]["mean"]["entries"]["values"]["relative_error"]["last"]["mean"] == pytest.approx(1)
    assert report["maps"]["ridge"]["entries"]["values"]["relative_error"]["mean"]["mean"] < 1
    total = float(scores.receiver_loss.sum() / scores.response_tokens.sum())
    assert report["receiver_loss"]["mean"] == pytest.approx(total, rel=1e-5)
