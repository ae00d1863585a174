"""`lightning analyze rank` and `gates` on a fresh fuser of the embedded pair."""

import json
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from c2c_lightning.export import load_fuser
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.pruning import fused_layers
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

CONFIG = str(Path(__file__).parents[2] / "configs" / "analyze" / "quickstart_fuser.yaml")


@pytest.fixture(scope="module")
def fuser(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, gate_init=1.0, token_alignment="span")
    model = C2CModel(load_frozen("embedded:receiver"), [load_frozen("embedded:sharer")], config)
    return str(model.save_pretrained(tmp_path_factory.mktemp("run") / "fuser"))


def test_rank(fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fuser", fuser, "--tokens", "40", "--samples", "2", "--max_rows", "20", "--output_dir", str(tmp_path)]
    main(["analyze", "rank", "--config", CONFIG, *options])
    report = json.loads((tmp_path / "rank.json").read_text())
    for cache in ("sharer", "receiver", "fused"):
        for part in ("keys", "values"):
            assert all(1 <= rank <= report["bound"][cache][part] <= 40 for rank in report["ranks"][cache][part])
    assert "±" in capsys.readouterr().out
    assert (tmp_path / "rank.png").stat().st_size > 1000


def test_gates_by_subject(fuser: str, tmp_path: Path) -> None:
    source = "[{class_path: c2c_lightning.data.sources.MultipleChoice, init_args: {path: embedded:facts/heldout}}]"
    options = ["--fuser", fuser, "--sources", source, "--by", "subject", "--max_rows", "6"]
    main(["analyze", "gates", *options, "--output_dir", str(tmp_path)])
    reports = json.loads((tmp_path / "gates.json").read_text())["sources"]
    assert [name.rsplit(maxsplit=1)[1] for name in reports] == ["capital", "colour", "food", "animal"]


def test_gates(fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "gates", "--config", CONFIG, "--fuser", fuser, "--max_rows", "8", "--output_dir", str(tmp_path)])
    assert json.loads((tmp_path / "gates.json").read_text())["sources"]
    assert "1.00" in capsys.readouterr().out
    assert (tmp_path / "gates.png").stat().st_size > 1000


def test_positions(fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(CONFIG).with_name("quickstart_positions.yaml"))
    options = ["--fuser", fuser, "--max_rows", "8", "--output_dir", str(tmp_path)]
    main(["analyze", "positions", "--config", config, *options])
    spans = json.loads((tmp_path / "positions.json").read_text())["spans"]
    assert [(span["begin"], span["end"]) for span in spans] == [(0, 1), (1, 4), (4, None)]
    assert "transferred" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rank", "--tokens", "100000"], "such rows would do"),
        (["gates", "--by", "subject"], "has a row without the column 'subject'"),
        (["rank", "--tokens", "1"], "`tokens` must be at least 2"),
        (["gates", "--sharer", "3"], "there is no sharer 3"),
        (["layers", "--sharer", "3"], "there is no sharer 3"),
        (["layers", "--units", "[]"], "`units` must name at least one"),
    ],
)
def test_impossible_choices_are_refused_and_nothing_is_written(
    options: list[str], message: str, fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = options
    with pytest.raises(SystemExit) as end:
        main(["analyze", name, "--config", CONFIG, "--fuser", fuser, "--max_rows", "8", *rest,
              "--output_dir", str(tmp_path / "out")])  # fmt: skip
    assert end.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_layers_and_their_removal(
    fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "layers"
    options = ["--fuser", fuser, "--max_rows", "6", "--batch_size", "3", "--max_lost_gain", "1e9"]
    options += ["--max_accuracy_drop", "1", "--output_dir", str(out)]
    main(["analyze", "layers", "--config", CONFIG, *options])
    report = json.loads((out / "layers.json").read_text())
    assert len(report["units"]) == 4 + 8 + 8
    assert len(report["drop_layers"][0]) == 3
    assert (out / "layers.png").stat().st_size > 1000
    assert "--drop_layers" in capsys.readouterr().out

    def refuse(*args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("c2c_lightning.commands.analyze_layers.measure", refuse)
    main(["analyze", "layers", "--config", CONFIG, *options])
    assert json.loads((out / "layers.json").read_text()) == report
    main(["export", "--fuser", fuser, "--drop_layers", str(out / "layers.json"), "--output_dir", str(tmp_path / "s")])
    assert len(fused_layers(load_fuser(tmp_path / "s").fuser)[0]) == 1
