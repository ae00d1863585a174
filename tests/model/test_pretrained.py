"""Fuser directory and language models together: saved, loaded, and refused where they do not fit."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TorchAoConfig

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import FuserFormatError, ModelLoadError, PairMismatchError
from c2c_lightning.export import TrainingRecord, convert_released
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen, load_tokenizer
from c2c_lightning.model.pretrained import Pretrained, load_pretrained, save_pretrained
from tests.tiny import Style, tiny_pair

GOLDEN = Path(__file__).parent.parent / "assets" / "golden"


def on_disk(folder: Path, family: str, seed: int, style: Style = "chatml", **sizes: Any) -> str:
    model, tokenizer = tiny_pair(family, seed, style, **sizes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return on_disk(tmp_path / "receiver", "qwen3", 0), on_disk(tmp_path / "sharer", "llama", 1)


def fused(receiver: FrozenLM, sharers: list[FrozenLM]) -> C2CModel:
    model = C2CModel(receiver, sharers, FuserConfig(hidden_dim=16, intermediate_dim=16)).eval()
    model.fuser.force_gates(is_open=True)
    return model


def logits(receiver: FrozenLM, sharers: tuple[FrozenLM, ...], fuser: Any) -> torch.Tensor:
    model = C2CModel(receiver, sharers, fuser.config).eval()
    model.fuser.load_state_dict(fuser.state_dict())
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        output: torch.Tensor = model(PromptBatch.shared(ids[:, :15], num_sharers=len(sharers)), ids[:, 15:]).logits
    return output


def same_answers(first: C2CModel, back: Pretrained) -> None:
    assert torch.equal(
        logits(first.receiver, first.sharers, first.fuser), logits(back.receiver, back.sharers, back.fuser)
    )


def test_round_trip_by_names(tmp_path: Path, pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    model = fused(load_frozen(pair[0]), [load_frozen(pair[1])])
    training = TrainingRecord(steps=7)
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers, training)
    assert sorted(path.name for path in (tmp_path / "fuser").iterdir()) == [
        "README.md",
        "fuser_config.json",
        "model.safetensors",
    ]
    with caplog.at_level(logging.WARNING):
        back = load_pretrained(tmp_path / "fuser")
    assert not caplog.records
    assert back.training == training
    same_answers(model, back)


def test_models_that_are_loaded_already(tmp_path: Path, pair: tuple[str, str]) -> None:
    model = fused(load_frozen(pair[0]), [load_frozen(pair[1])])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    sharer = model.sharers[0]
    same_answers(model, load_pretrained(tmp_path / "fuser", model.receiver, (sharer.model, sharer.tokenizer)))
    same_answers(model, load_pretrained(tmp_path / "fuser", Path(pair[0]), [LMSpec(pair[1])]))


def test_type_of_the_language_models(tmp_path: Path, pair: tuple[str, str]) -> None:
    model = fused(load_frozen(pair[0]), [load_frozen(pair[1])])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    for dtype in ("bfloat16", torch.bfloat16):
        back = load_pretrained(tmp_path / "fuser", dtype=dtype)  # type: ignore[arg-type]
        assert {p.dtype for lm in (back.receiver, *back.sharers) for p in lm.model.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in back.fuser.parameters()} == {torch.float32}


def test_prompt_template_travels_along(tmp_path: Path) -> None:
    receiver = on_disk(tmp_path / "receiver", "qwen3", 0)
    sharer = on_disk(tmp_path / "sharer", "llama", 1, "plain")
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}!")
    model = fused(load_frozen(receiver), [load_frozen(LMSpec(sharer, prompt_template=str(tmp_path / "mine.jinja")))])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    (tmp_path / "mine.jinja").unlink()
    spec = load_pretrained(tmp_path / "fuser").sharers[0].spec
    assert spec.prompt_template == PromptTemplate("mine", "{{ messages[0]['content'] }}!")


def test_wrong_pair(tmp_path: Path, pair: tuple[str, str]) -> None:
    model = fused(load_frozen(pair[0]), [load_frozen(pair[1])])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    with pytest.raises(PairMismatchError, match="swapped"):
        load_pretrained(tmp_path / "fuser", receiver=pair[1], sharers=[pair[0]])
    with pytest.raises(PairMismatchError, match=r"trained for the sharer .*llama|trained for the sharer"):
        load_pretrained(tmp_path / "fuser", sharers=[pair[0]])
    with pytest.raises(PairMismatchError, match="has 1 sharers, but 2 were given"):
        load_pretrained(tmp_path / "fuser", sharers=[pair[1], pair[1]])


def test_named_model_is_gone(tmp_path: Path, pair: tuple[str, str]) -> None:
    model = fused(load_frozen(pair[0]), [load_frozen(pair[1])])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    Path(pair[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(ModelLoadError, match="sharer"):
        load_pretrained(tmp_path / "fuser")


def test_a_name_that_is_too_long_for_a_file() -> None:
    name = "a" * 300
    with pytest.raises(FuserFormatError, match="there is no fuser at"):
        load_pretrained(name)
    for load in (load_frozen, lambda name: load_tokenizer(LMSpec(name))):
        with pytest.raises(ModelLoadError, match="cannot load the"):
            load(name)


def test_sharer_without_tokenizer_reads_the_receivers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert_released(GOLDEN / "checkpoint", tmp_path / "fuser")
    with caplog.at_level(logging.WARNING):
        back = load_pretrained(tmp_path / "fuser")
    assert "comes without a tokenizer" in caplog.text
    assert back.sharers[0].tokenizer is back.receiver.tokenizer
    with pytest.raises(ModelLoadError, match="no tokenizer file"):
        load_frozen(str(GOLDEN / "sharer"))


def test_quantised_while_it_is_loaded(pair: tuple[str, str]) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    settings = TorchAoConfig(quantization.Int8WeightOnlyConfig()).to_dict()
    receiver, sharer = (load_frozen(LMSpec(path, quantization=settings)) for path in pair)
    assert type(receiver.model.model.layers[0].self_attn.q_proj.weight).__name__ == "Int8Tensor"
    assert receiver.empty_kv(1)[0].keys.dtype == torch.float32
    model = fused(receiver, [sharer])
    assert model.generate(PromptBatch.shared(torch.tensor([[5, 6, 7, 8]])), max_new_tokens=2).shape == (1, 6)


def test_an_unknown_rotary_type_is_named(pair: tuple[str, str]) -> None:
    file = Path(pair[0]) / "config.json"
    rotary = {"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **rotary}))
    with pytest.raises(ModelLoadError, match="does not know 'spiral', which its config"):
        load_frozen(pair[0])


def test_unknown_quantisation_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ModelLoadError, match="Unknown quantization type"):
        load_frozen(LMSpec(pair[0], quantization={"quant_method": "int7"}))


def test_template_arguments_travel_along(tmp_path: Path, pair: tuple[str, str]) -> None:
    thinking = {"enable_thinking": True}
    model = fused(load_frozen(LMSpec(pair[0], chat_template_kwargs=thinking)), [load_frozen(pair[1])])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    loaded = (model.receiver.model, model.receiver.tokenizer)
    for receiver in (None, pair[0], loaded):
        back = load_pretrained(tmp_path / "fuser", receiver)
        assert back.receiver.tokenizer_spec.chat_template_kwargs == thinking
        assert back.sharers[0].tokenizer_spec.chat_template_kwargs is None
    own = LMSpec(pair[0], chat_template_kwargs={})
    assert load_pretrained(tmp_path / "fuser", own).receiver.tokenizer_spec.chat_template_kwargs == {}


def test_a_template_text_without_variables_is_no_path(tmp_path: Path, pair: tuple[str, str]) -> None:
    (tmp_path / "secret").write_text("a secret")
    template = PromptTemplate("mine", str(tmp_path / "secret"))
    model = fused(load_frozen(pair[0]), [load_frozen(LMSpec(pair[1], prompt_template=template))])
    save_pretrained(tmp_path / "fuser", model.fuser, model.receiver, model.sharers)
    assert load_pretrained(tmp_path / "fuser").sharers[0].tokenizer_spec.template == template.jinja
