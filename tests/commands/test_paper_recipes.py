"""The recipes of the paper's pairs: models, and a fuser for tiny stand-ins of them."""

from pathlib import Path

import pytest
import yaml

from c2c_lightning.commands.trainer_cli import run_parser
from c2c_lightning.training.module import C2CModule
from tests.test_configs import CONFIGS, RECIPE
from tests.tiny import tiny_pair

QWEN3, QWEN2 = ("Qwen/Qwen3-0.6B", "qwen3", "chatml"), ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", "chatml")
PAIRS = {
    "qwen3_0.6b_from_qwen2.5_0.5b": (QWEN3, QWEN2),
    "qwen3_0.6b_from_llama3.2_1b": (QWEN3, ("meta-llama/Llama-3.2-1B-Instruct", "llama", "header")),
    "qwen3_0.6b_from_qwen3_4b_base": (QWEN3, ("Qwen/Qwen3-4B-Base", "qwen3", "chatml")),
    "qwen3_0.6b_from_gemma3_1b": (QWEN3, ("google/gemma-3-1b-it", "gemma3", "header")),
    "qwen3_0.6b_from_qwen2.5_math_1.5b": (QWEN3, ("Qwen/Qwen2.5-Math-1.5B-Instruct", "qwen2", "chatml")),
    "qwen3_0.6b_from_qwen2.5_coder_0.5b": (QWEN3, ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen2", "chatml")),
    "qwen2.5_0.5b_from_qwen3_0.6b": (QWEN2, QWEN3),
    "qwen3_0.6b_identical": (QWEN3, QWEN3),
}


def configured(*files: Path) -> C2CModule:
    """The module of merged configurations; no model is loaded yet."""
    parser = run_parser("fit")
    config = parser.parse_args([word for file in files for word in ("--config", str(file))])
    del config["trainer"]
    module: C2CModule = parser.instantiate_classes(config).model
    return module


@pytest.mark.parametrize("name", PAIRS)
def test_a_recipe_makes_a_fuser_of_its_pair(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = CONFIGS / "fit" / f"{name}.yaml"
    named = configured(RECIPE, recipe)
    assert [spec.path for spec in (named.receiver_spec, *named.sharer_specs)] == [path for path, _, _ in PAIRS[name]]
    assert {spec.dtype for spec in (named.receiver_spec, *named.sharer_specs)} == {"bfloat16"}
    for role, (path, family, style) in zip(("receiver", "sharer"), PAIRS[name], strict=True):
        for part in tiny_pair(family, len(path), style):
            part.save_pretrained(role)
    sharer = "receiver" if PAIRS[name][0] == PAIRS[name][1] else "sharer"
    few = {
        "receiver": {"path": "receiver"},
        "sharers": [{"path": sharer, "dtype": "bfloat16"}],
        "fuser": {"hidden_dim": 8, "intermediate_dim": 8},
    }
    Path("few.yaml").write_text(yaml.safe_dump({"model": few}))
    made = configured(RECIPE, recipe, Path("few.yaml"))
    made.configure_model()
    layers = made.model.receiver.geometry.num_layers
    assert [source is not None for source in made.model.fuser.sharers[0].layer_map] == [True] * layers
    assert made.fuser_config.anneal_steps == 1929
    # As released: re-tokenised for unlike tokenizers. The stand-ins of one family have the same one.
    expected = "identity" if PAIRS[name][0][1] == PAIRS[name][1][1] else "longest"
    assert made.encoder.strategies == (expected,)
    assert (made.model.sharers[0] is made.model.receiver) == (name == "qwen3_0.6b_identical")


def test_the_recipe_of_table_7(tmp_path: Path) -> None:
    parser = run_parser("fit")
    gemma = CONFIGS / "fit" / "qwen3_0.6b_from_gemma3_1b.yaml"
    words = [word for file in (RECIPE, gemma, CONFIGS / "fit" / "mmlu.yaml") for word in ("--config", str(file))]
    config = parser.parse_args(words)
    trainer, data = config["trainer"], config["data"]
    assert data["batch_size"] * trainer["devices"] * trainer["accumulate_grad_batches"] == 128
    assert data["max_rows"] * (1 - data["validation_share"]) // 128 == config["model"]["fuser"]["anneal_steps"] == 116
    assert data["train"]["class_path"].endswith("MultipleChoice")
    assert data["max_length"] == 1024
