"""The recipes of hybrid receivers, on tiny stand-ins of the models that they name."""

from pathlib import Path

import pytest
import yaml
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from c2c_lightning.cli import main
from c2c_lightning.export.format import load_fuser
from tests.hybrids import hybrid_config
from tests.test_configs import CONFIGS, RECIPE
from tests.tiny import tiny_pair, tiny_tokenizer

SHARERS = {"qwen3.5_0.8b_from_qwen3_0.6b": "qwen3", "qwen3.5_0.8b_from_llama3.2_1b": "llama"}
VISION = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
    "num_position_embeddings": 16,
}  # fmt: skip


def save_stand_ins(sharer: str) -> None:
    """A receiver as Qwen3.5 is published, with its vision tower, and a sharer with another tokenizer."""
    config = Qwen3_5Config(text_config=hybrid_config("qwen3_5_text").to_dict(), vision_config=VISION)
    Qwen3_5ForConditionalGeneration(config).save_pretrained("receiver")
    tiny_tokenizer().save_pretrained("receiver")
    for part in tiny_pair(sharer, 1, "header"):
        part.save_pretrained("sharer")


@pytest.mark.parametrize("recipe", SHARERS)
def test_a_recipe_of_a_hybrid_receiver_trains(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_stand_ins(SHARERS[recipe])
    few = yaml.safe_load((Path(__file__).parents[1] / "conf" / "fit.yaml").read_text())
    del few["model"], few["trainer"]["callbacks"]
    few["trainer"] |= {
        "devices": 1, "strategy": "auto", "accumulate_grad_batches": 1, "max_epochs": None, "max_steps": 1,
        "val_check_interval": 1,
    }  # fmt: skip
    few["model"] = {
        "receiver": {"path": "receiver", "dtype": "float32"},
        "sharers": [{"path": "sharer", "dtype": "float32"}],
        "fuser": {"hidden_dim": 8, "intermediate_dim": 8},
    }
    Path("few.yaml").write_text(yaml.safe_dump(few))
    main(["fit", "--config", str(RECIPE), "--config", str(CONFIGS / "fit" / f"{recipe}.yaml"), "--config", "few.yaml"])
    saved = load_fuser("run/fuser")
    assert (saved.description.config.layer_alignment, saved.description.config.token_alignment) == ("depth", "span")
    # Attention layers only: two of the stand-in's five.
    assert len(saved.fuser.sharers[0].layer_map) == 2
