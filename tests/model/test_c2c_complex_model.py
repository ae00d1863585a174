"""C2C-C in a whole model: every mode, several sharers, saved and loaded, trained from YAML like any other fuser."""

from pathlib import Path

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.export import load_fuser
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.pretrained import save_pretrained
from tests.tiny import tiny_pair

MODES = ["prefill", "prompt", "decode"]
SETTINGS = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
IDS = torch.arange(3, 15)[None]


def build(mode: str, num_sharers: int = 1) -> C2CModel:
    parts = ComplexConfig(weight_hidden_dim=9, weight_dropout=0.0)
    config = FuserConfig(kind="c2c_c", hidden_dim=10, dropout=0.0, fusion_mode=mode, complex=parts)  # type: ignore[arg-type]
    sharers = [load_frozen(tiny_pair("llama", seed)) for seed in range(1, 1 + num_sharers)]
    torch.manual_seed(3)
    model = C2CModel(load_frozen(tiny_pair("qwen3", 0)), sharers, config).eval()
    model.fuser.force_gates(is_open=True)
    return model


@pytest.mark.parametrize("mode", MODES)
def test_modes_train_generate_and_close(mode: str) -> None:
    model, prompt = build(mode, num_sharers=2), PromptBatch.shared(IDS, num_sharers=2)
    tokens = model.generate(prompt, **SETTINGS)[:, 12:]
    with torch.no_grad():
        forced = model(prompt, tokens).logits[:, :-1]
    assert forced.argmax(-1).tolist() == tokens.tolist(), "step by step is teacher forcing"
    model.train()
    model(prompt, tokens).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.fuser.named_parameters()}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values()), gradients
    model.eval()
    model.fuser.force_gates(is_open=False)
    bare = model.receiver.model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), **SETTINGS)
    assert torch.equal(model.generate(prompt, **SETTINGS), bare)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = build("prefill")
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    saved = load_fuser(tmp_path / "fuser")
    assert saved.description.config == model.fuser.config
    assert saved.fuser.state_dict().keys() == model.fuser.state_dict().keys()
    for name, tensor in saved.fuser.state_dict().items():
        assert torch.equal(tensor, model.fuser.state_dict()[name]), name
    assert "weight_hidden_dim 9" in (tmp_path / "fuser" / "README.md").read_text()
