"""`lightning doctor --model`: one section, exit code 1 for a model that is refused or that a fuser does not fit."""

import json
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

from benchmarks.family_matrix import checks
from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.cli import main
from c2c_lightning.commands.terminal_log import quiet_bars
from tests.tiny import tiny_model


def test_an_embedded_model_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--model", "embedded:receiver", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["Model"]
    assert found["Model"][0]["text"].startswith("Qwen3ForCausalLM: 4 of 4 layers take part")
    assert found["Model"][1]["name"] == "layers 0-3"


def test_a_refused_model_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LMClass("DeepseekV32ForCausalLM").build().save_pretrained(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--model", str(tmp_path)])
    assert exit_.value.code == 1
    assert "selects tokens by an indexer" in " ".join(capsys.readouterr().out.split())


def test_a_model_that_fits_no_role_of_a_fuser_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = checks.fused_pair(checks.frozen(tiny_model("qwen3")), checks.frozen(checks.partner()), "prefill")
    pair.save_pretrained(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--model", "embedded:receiver", "--fuser", str(tmp_path)])
    assert exit_.value.code == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "as receiver does not fit: needed are 4 layers, 2 KV heads of width 12" in text


def test_a_fuser_without_a_model_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--fuser", "somewhere"])
    assert exit_.value.code == 2
    assert "--fuser needs --model" in capsys.readouterr().err


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--model", "/no/such/folder"])
    assert exit_.value.code == 1
    assert "there is no directory" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "is_quiet"),
    [(["--model", "embedded:receiver"], True), (["--model=embedded:receiver"], True), ([], False)],
)
def test_bars_of_loaded_weights_are_off(words: list[str], is_quiet: bool) -> None:
    transformers_logging.enable_progress_bar()
    quiet_bars(["doctor", *words])
    assert transformers_logging.is_progress_bar_enabled() is not is_quiet


def test_a_missing_fuser_is_named_not_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--model", "embedded:receiver", "--fuser", str(tmp_path / "none"), "--json"])
    assert json.loads(capsys.readouterr().out)["Model"][0]["name"] == str(tmp_path / "none")
