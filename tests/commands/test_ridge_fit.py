"""`lightning fit` of a closed-form fuser: one pass, no training, an ordinary fuser directory."""

from pathlib import Path

import pytest
import torch

from c2c_lightning.cli import main
from c2c_lightning.data.preprocessing.row_encoder import training_batches
from c2c_lightning.data.sources.chat import Messages
from c2c_lightning.export import load_fuser
from c2c_lightning.model.c2c import C2CModel

FIT = str(Path(__file__).parents[1] / "conf" / "fit.yaml")


@pytest.mark.parametrize("kind", ["ridge", "rotary_free"])
def test_fit_solves_and_saves(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = '{"num_sources": 2, "num_tokens": 300}' if kind == "ridge" else '{"kind": "ridge", "num_tokens": 300}'
    main(["fit", "--config", FIT, "--model.fuser.kind", kind, "--model.fuser.options", options])
    fuser = load_fuser("run/fuser").fuser
    group = fuser.sharers[0].groups[0]
    assert len(group.sharer_layers) == 4 * (2 if kind == "ridge" else 3)
    model = C2CModel.from_pretrained("run/fuser")
    assert isinstance(model.chat([[{"role": "user", "content": "Where is it?"}]], max_new_tokens=2)[0], str)
    # The map predicts the receiver's own entries of other text, better than their mean.
    prompt = training_batches(Messages("embedded:facts/train_chat"), model.encoder, 32, 32)[0].prompt
    state, tokens = model.prefill(prompt), prompt.plan.one_pass[0].fused_tokens[0]
    own, mapped = (kv[-1].keys[tokens.row, :, tokens.token] for kv in (state.unfused_kv, state.fused_kv))
    assert float((own - mapped).norm() / (own - own.mean(0)).norm()) < 0.9


def test_a_map_for_mode_decode_is_fitted_on_responses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the other modes on prompts alone."""
    monkeypatch.chdir(tmp_path)
    weights = []
    for mode in ("prefill", "prompt", "decode"):
        arguments = ["--model.fuser.options", '{"num_tokens": 300}', "--model.fuser.fusion_mode", mode]
        main(["fit", "--config", FIT, "--model.fuser.kind", "ridge", *arguments, "--trainer.default_root_dir", mode])
        weights.append(load_fuser("run/fuser").fuser.state_dict())
    prefill, prompt, decode = weights
    name = "sharers.0.groups.0.values.weight"
    assert torch.equal(prefill[name], prompt[name])
    assert not torch.allclose(prefill[name], decode[name])
