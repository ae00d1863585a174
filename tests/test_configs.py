"""Every shipped configuration is understood, and overlays go with runs."""

from pathlib import Path

import pytest
import yaml

from c2c_lightning.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
COMMANDS = {"fit": "fit", "eval": "test", "predict": "predict"}
RUNS = sorted(path for folder in COMMANDS for path in (CONFIGS / folder).glob("*.yaml"))
OVERLAYS = sorted(path for folder in ("trainer", "logger") for path in (CONFIGS / folder).glob("*.yaml"))
RECIPE = CONFIGS / "fit" / "qwen3_0.6b_from_qwen2.5_0.5b.yaml"


def parsed(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> dict[str, dict[str, object]]:
    """What a run would use."""
    with pytest.raises(SystemExit) as exit_:
        main([command, *arguments, "--print_config"])
    assert exit_.value.code in (0, None)
    loaded: dict[str, dict[str, object]] = yaml.safe_load(capsys.readouterr().out)
    return loaded


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_run_is_understood(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(capsys, COMMANDS[path.parent.name], "--config", str(path))["model"]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_overlay_is_understood(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = parsed(capsys, "fit", "--config", str(RECIPE), "--config", str(path))
    for key, value in yaml.safe_load(path.read_text())["trainer"].items():
        if isinstance(value, dict):
            assert config["trainer"][key]["class_path"] == value["class_path"]  # type: ignore[index]
        else:
            assert config["trainer"][key] == value


def test_every_yaml_is_looked_at() -> None:
    # `analyze`, `oracle`, `bench` and `fuser-hub` have tests of their own that read them.
    parts = {
        path
        for folder in ("model", "data", "responder", "analyze", "oracle", "bench", "fuser-hub")
        for path in (CONFIGS / folder).rglob("*.yaml")
    }
    assert set(CONFIGS.rglob("*.yaml")) == {*RUNS, *OVERLAYS, *parts}


def test_the_recipe_is_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    config = parsed(capsys, "fit", "--config", str(RECIPE))
    trainer, data, model = config["trainer"], config["data"], config["model"]
    rows = data["batch_size"] * trainer["devices"] * trainer["accumulate_grad_batches"]  # type: ignore[operator]
    assert rows == 256
    assert data["max_rows"] // rows - 1929 in range(25)  # type: ignore[operator]
    assert (data["max_length"], data["validation_share"], config["seed_everything"]) == (2048, 0.01, 42)
    assert trainer["val_check_interval"] == 100 * trainer["accumulate_grad_batches"]  # type: ignore[operator]
    assert model["optimizer"]["init_args"]["lr"] == 1e-4  # type: ignore[index]
    assert model["fuser"]["hidden_dim"] == 1024  # type: ignore[index]


def test_an_identical_sharer_is_loaded_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Models are shared where their settings are equal."""
    files = [str(CONFIGS / "fit" / f"{name}.yaml") for name in ("private_text", "private_text_identical")]
    model = parsed(capsys, "fit", "--config", files[0], "--config", files[1])["model"]
    assert model["sharers"] == [model["receiver"]]


@pytest.mark.parametrize("overlay", ["private_questions", "private_continuations", "closed_book"])
def test_trainings_over_private_text_are_understood(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(CONFIGS / "fit" / f"{name}.yaml") for name in ("private_text", overlay)]
    second_stage = "c2c_lightning.training.callbacks.initial_fuser.InitialFuser"
    options = [f"--trainer.callbacks+={second_stage}", "--trainer.callbacks.path", "runs/private_text/fuser"]
    config = parsed(capsys, "fit", "--config", files[0], "--config", files[1], *options)
    assert config["trainer"]["default_root_dir"] == f"runs/{overlay}"
    callbacks: list[dict[str, object]] = config["trainer"]["callbacks"]  # type: ignore[assignment]
    assert callbacks[-1] == {"class_path": second_stage, "init_args": {"path": "runs/private_text/fuser"}}
    source = config["data"]["train"]
    assert source["class_path"].startswith("c2c_lightning.data.sources.")  # type: ignore[index]
