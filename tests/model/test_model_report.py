"""Reports on language models: layers, windows, positions, refusals, and whether a fuser fits."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.family_matrix import checks
from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.kv.position_probe import Positions
from c2c_lightning.model.model_report import ModelReport, report_model
from tests.tiny import WINDOW, tiny_model


def report(model: Any, **kwargs: Any) -> ModelReport:
    return report_model(checks.frozen(model), **kwargs)


def test_layers_with_windows_and_shapes() -> None:
    found = report(tiny_model("gemma3"))
    assert [layer.window for layer in found.layers] == [WINDOW, None] * 2
    assert found.num_fused == 4
    (first, text), (second, _) = found.layer_groups()
    assert (first, second) == ("0, 2", "1, 3")
    assert text == "sliding attention of 8 tokens: 2 KV heads of width 16, rotary positions (default, base 10000)"


@pytest.mark.parametrize(
    ("model", "positions"),
    [
        ("LlamaForCausalLM", [Positions.ROTARY] * 4),
        ("GPT2LMHeadModel", [Positions.ABSOLUTE] * 4),
        ("BloomForCausalLM", [Positions.NONE] * 2),
        ("DeepseekV3ForCausalLM", [Positions.ROTARY] * 4),
    ],
)
def test_positions_are_measured(model: str, positions: list[Positions]) -> None:
    assert [layer.positions for layer in report(LMClass(model).build()).layers] == positions


def test_layers_without_rotary_positions_are_told_apart() -> None:
    kinds = [layer.positions for layer in report(tiny_model("smollm3")).layers]
    assert kinds == [Positions.ROTARY, Positions.ROTARY, Positions.NONE, Positions.ROTARY]


def test_layers_that_share_a_cache_and_layers_with_states() -> None:
    shared = report(LMClass("Gemma4ForCausalLM", settings={"num_kv_shared_layers": 2}).build())
    assert [layer.geometry is not None for layer in shared.layers] == [True, True, False, False]
    assert "without a cache of its own: not fused" in shared.layers[2].describe()
    hybrid = report(LMClass("Qwen3_5ForCausalLM").build())
    assert [layer.geometry is not None for layer in hybrid.layers] == [False, True, False, True]
    assert "keeps a state" in hybrid.layers[0].describe()


def test_a_refused_model_on_disk(tmp_path: Path) -> None:
    LMClass("BertLMHeadModel").build().save_pretrained(tmp_path)
    checks.tokenizer().save_pretrained(tmp_path)
    found = report_model(str(tmp_path))
    assert found.refusal is not None
    assert found.layers == ()


def test_a_fuser_is_compared_in_each_role(tmp_path: Path) -> None:
    receiver, sharer = tiny_model("qwen3"), checks.partner()
    checks.fused_pair(checks.frozen(receiver), checks.frozen(sharer), "prefill").save_pretrained(tmp_path / "fuser")
    as_receiver, as_sharer = report(receiver, fuser=tmp_path / "fuser").fits
    assert (as_receiver.role, as_receiver.problem) == ("receiver", None)
    assert (as_sharer.role, as_sharer.problem) == (
        "sharer",
        "needed are 3 layers, 2 KV heads of width 6, but it has 4 layers, 2 KV heads of width 12",
    )
