"""Parts of the fusion are left out, and only these."""

import pytest
import torch
from torch import Tensor

from c2c_lightning.analysis.fusion_mask import (
    FusedUnit,
    full_masks,
    gate_units,
    head_units,
    layer_units,
    masked_heads,
    masked_tokens,
)
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.pruning import without_layers
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

MODES = pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])


def build(kind: str = "c2c", mode: str = "prefill") -> C2CModel:
    torch.manual_seed(0)
    sizes = {"options": {"rank": 4}} if kind == "low_rank" else {"hidden_dim": 16, "intermediate_dim": 16}
    config = FuserConfig(kind=kind, dropout=0.0, fusion_mode=mode, gate_init=1.0, **sizes)  # type: ignore[arg-type]
    return C2CModel(load_frozen(tiny_pair("qwen3", 0)), [load_frozen(tiny_pair("qwen2", 1))], config).eval()


def example() -> PromptBatch:
    return PromptBatch.shared(torch.randint(3, 300, (2, 7), generator=torch.Generator().manual_seed(1)))


def logits(model: C2CModel, prompt: PromptBatch | None = None) -> Tensor:
    response = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        return model(prompt or example(), response).logits


@MODES
@pytest.mark.parametrize("kind", ["c2c", "low_rank", "no_gates"])
def test_a_masked_layer_equals_a_removed_one(kind: str, mode: str) -> None:
    model = build(kind, mode)
    kept = [~mask for mask in FusedUnit(0, 2).mask(model.fuser)]
    with masked_heads(model.fuser, kept):
        masked = logits(model)
    removed = C2CModel(model.receiver, model.sharers, without_layers(model.fuser, [{2}])).eval()
    torch.testing.assert_close(masked, logits(removed))
    assert not torch.allclose(masked, logits(model)), "the mask ends with its context"


@MODES
def test_nothing_fused_is_the_receiver(mode: str) -> None:
    model = build(mode=mode)
    with masked_heads(model.fuser, full_masks(model.fuser, False)):
        masked = logits(model)
    torch.testing.assert_close(
        masked, model(example(), torch.tensor([[5, 6, 7], [8, 9, 10]]), active_sharers=()).logits
    )


def test_a_masked_gate_is_a_closed_gate() -> None:
    model = build()
    with masked_heads(model.fuser, [~mask for mask in FusedUnit(0, 1, "keys").mask(model.fuser)]):
        masked = logits(model)
    (_, _, keys, _), *_ = model.fuser.gates()
    keys.logit.data[1] = -1.0
    torch.testing.assert_close(logits(model), masked)


def test_only_the_entries_of_a_masked_head_are_unfused() -> None:
    model, prompt = build(), example()
    whole, alone = cache_entries(model.fuse(prompt)), cache_entries(model.fuse(prompt, active_sharers=()))
    with masked_heads(model.fuser, [~mask for mask in FusedUnit(0, 0, None, 1).mask(model.fuser)]):
        masked = cache_entries(model.fuse(prompt))
    for part in ("keys", "values"):
        got, fused, own = (getattr(layers[0], part) for layers in (masked, whole, alone))
        torch.testing.assert_close(got[:, 0], fused[:, 0])
        torch.testing.assert_close(got[:, 1], own[:, 1])
        assert not torch.equal(fused[:, 1], own[:, 1])


def test_units_are_all_fused_ones() -> None:
    fuser = without_layers(build().fuser, [{1}])
    assert [unit.layer for unit in layer_units(fuser)] == [0, 2, 3]
    assert len(gate_units(fuser)) == len(head_units(fuser)) == 6
    assert FusedUnit(1, 2, "keys", 0).name == "sharer 1 layer 2 keys head 0"


@MODES
def test_all_tokens_masked_is_the_receiver(mode: str) -> None:
    model = build(mode=mode)
    response = torch.tensor([[5], [8]])
    with masked_tokens(model.fuser, torch.zeros(2, 7, dtype=torch.bool)):
        masked = model(example(), response).logits[:, 0]
    torch.testing.assert_close(masked, model(example(), response, active_sharers=()).logits[:, 0])


@MODES
def test_only_the_entries_of_a_masked_token_are_unfused(mode: str) -> None:
    model, prompt = build(mode=mode), example()
    kept = torch.ones(2, 7, dtype=torch.bool)
    kept[0, 3] = False
    whole = model.prefill(prompt).fused_kv
    alone = model.prefill(prompt, active_sharers=()).fused_kv
    with masked_tokens(model.fuser, kept):
        masked = model.prefill(prompt).fused_kv
    for got, fused, own in zip(masked, whole, alone, strict=True):
        torch.testing.assert_close(got.keys[0, :, 3], own.keys[0, :, 3])
        torch.testing.assert_close(got.keys[1], fused.keys[1])
        torch.testing.assert_close(got.keys[0, :, 4:], fused.keys[0, :, 4:])


def test_the_last_prompt_token_of_mode_prompt_is_masked_alone() -> None:
    model, kept = build(mode="prompt"), torch.ones(2, 7, dtype=torch.bool)
    response = torch.tensor([[5], [8]])
    kept[:, -1] = False
    with masked_tokens(model.fuser, kept):
        masked = model(example(), response).logits
    torch.testing.assert_close(masked, build(mode="prefill")(example(), response).logits)
