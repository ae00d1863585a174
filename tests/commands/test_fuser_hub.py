"""`lightning fuser-hub`: training, resumption, parameters, export and evaluation of a hub, and wrong arguments."""

import json
from pathlib import Path

import pytest
import yaml

from c2c_lightning.cli import main
from c2c_lightning.commands.fuser_hub import ACTIONS
from c2c_lightning.export import load_fuser
from c2c_lightning.export.hub_directory import load_hub
from tests.training.hubs import FUSER, NAMES, save_models
from tests.training.runs import write_rows

EVALUATION = {
    "model": {"responders": ["receiver", "c2c"], "controls": ["mismatched"], "max_new_tokens": 2, "plots": False},
    "trainer": {"accelerator": "cpu"},
}


def write_config(folder: Path) -> str:
    """A training of three tiny models, each with a file of rows that it shares."""
    rows = {name: write_rows(folder / f"{name}.jsonl", 16) for name in NAMES}
    source = "c2c_lightning.data.sources.Messages"
    config = {
        "model": {"models": {name: {"path": str(folder / "models" / name)} for name in NAMES}, "fuser": FUSER},
        "data": {
            "train": {name: {"class_path": source, "init_args": {"path": path}} for name, path in rows.items()},
            "validation_share": 0.2,
            "batch_size": 2,
            "cache_dir": str(folder / "cache"),
        },
        "trainer": {"default_root_dir": str(folder / "run"), "accelerator": "cpu", "max_steps": 2},
    }
    config["trainer"] |= {"val_check_interval": 1, "check_val_every_n_epoch": None, "enable_progress_bar": False}
    config["trainer"]["callbacks"] = [{"class_path": "c2c_lightning.training.callbacks.export_fuser.ExportFuser"}]
    path = folder / "hub.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.slow
def test_a_hub_is_trained_shown_exported_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_models(tmp_path / "models")
    config, run, hub = write_config(tmp_path), tmp_path / "run", str(tmp_path / "run/hub")
    main(["fuser-hub", "fit", "--config", config])
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/loss", "val/loss/qwen_to_llama", "val/loss_mismatched/llama_to_mistral"} <= set(header)
    assert any(name.startswith("gate/mistral_to_qwen/layer_00") for name in header)

    main(["fuser-hub", "show", "--hub", hub])
    assert "gates qwen_to_llama" in capsys.readouterr().out

    last = str(run / "checkpoints/last.ckpt")
    main(["fuser-hub", "validate", "--config", config, "--ckpt_path", last])
    assert "val/loss/llama_to_qwen" in capsys.readouterr().out
    main(["fuser-hub", "export", "--hub", last, "--output_dir", str(tmp_path / "whole")])
    assert load_hub(tmp_path / "whole").description.models == load_hub(hub).description.models

    questions = [{"question": f"Who is {n}?", "choices": ["It", "He"], "answer": n % 2} for n in range(4)]
    (tmp_path / "llama_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    for name in NAMES:
        (tmp_path / f"{name}_rows.jsonl").write_text((tmp_path / "llama_rows.jsonl").read_text())
    benchmark = {"name": "who", "path": f"{tmp_path}/{{sharer}}_rows.jsonl", "wording": "question", "mode": "generate"}
    evaluation = {**EVALUATION, "data": {"benchmarks": [{**benchmark, "scoring": "choice_text"}], "batch_size": 4}}
    (tmp_path / "evaluation.yaml").write_text(yaml.safe_dump(evaluation))
    measure = ["--config", str(tmp_path / "evaluation.yaml"), "--output_dir", str(tmp_path / "measured")]
    main(["fuser-hub", "test", "--hub", hub, *measure])
    results = json.loads((tmp_path / "measured/directions.json").read_text())["directions"]
    assert len(results) == 6
    assert all(set(one["accuracy"]) == {"receiver", "c2c", "c2c:mismatched"} and one["trained"] for one in results)
    assert load_fuser(tmp_path / "measured/llama_to_qwen/fuser").description.receiver.name.endswith("qwen")

    with pytest.raises(SystemExit):
        main(["test", "--config", str(tmp_path / "measured/llama_to_qwen/evaluation.yaml"), "--model.fuser", last])
    assert "is a checkpoint of a hub" in capsys.readouterr().err


def test_help_lists_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fuser-hub", "--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ACTIONS)
    with pytest.raises(SystemExit):
        main(["fuser-hub", "fit", "--help"])
    assert "--model.models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "an action must be named"),
        (["exprt"], "Did you mean `export`?"),
        (["show", "--hub", "nowhere"], "there is no hub at 'nowhere'"),
        (["export", "--hub", "nowhere.ckpt", "--output_dir", "x"], "there is no checkpoint nowhere.ckpt"),
        (["fit"], "lightning fuser-hub fit --config quickstart_hub"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments_are_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fuser-hub", *words])
    assert stop.value.code in (1, 2)
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
