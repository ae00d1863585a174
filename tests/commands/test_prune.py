"""`lightning export --prune`."""

import json
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from c2c_lightning.export import load_fuser
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.pruning import fused_layers
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen

ROWS = "embedded:facts/validation_chat"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fuser of the embedded pair whose gates of one layer are closed."""
    receiver, sharer = (load_frozen(LMSpec(f"embedded:{name}")) for name in ("receiver", "sharer"))
    config = FuserConfig(kind="low_rank", options={"rank": 4}, token_alignment="span", gate_init=1.0)
    model = C2CModel(receiver, [sharer], config)
    (_, _, keys, values), *_ = model.fuser.gates()
    keys.logit.data[1] = values.logit.data[1] = -1.0
    return model.save_pretrained(tmp_path_factory.mktemp("prune") / "fuser")


def test_closed_gates(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--fuser", str(directory), "--output_dir", str(tmp_path / "small"), "--prune", "closed"]
    main([*command, "--rows", ROWS])
    saved = load_fuser(tmp_path / "small")
    assert fused_layers(saved.fuser) == [[0, 2, 3]]
    results = json.loads((tmp_path / "small" / "fuser_config.json").read_text())["training"]["results"]
    assert results["pruned/layers"] == 3
    assert results["pruned/accuracy_before"] == results["pruned/accuracy_after"]
    shown = capsys.readouterr().out
    assert "fused layers" in shown
    assert "accuracy" in shown


def test_measured_keeps_as_many_as_asked(directory: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "What is the food of Nepi?"}, {"role": "assistant", "content": "corn"}]
    rows.write_text(json.dumps({"messages": messages}) + "\n")
    command = ["export", "--fuser", str(directory), "--output_dir", str(tmp_path / "small"), "--prune", "measured"]
    main([*command, "--rows", str(rows), "--keep", "1"])
    assert len(fused_layers(load_fuser(tmp_path / "small").fuser)[0]) == 1


def test_named_layers(directory: Path, tmp_path: Path) -> None:
    main(["export", "--fuser", str(directory), "--output_dir", str(tmp_path / "small"), "--drop_layers", "0,3"])
    assert fused_layers(load_fuser(tmp_path / "small").fuser) == [[1, 2]]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("7", "names layer 7, but the layers fused with sharer 0 are 0, 1, 2, 3"),
        ("1:0", "names sharer 1"),
        ("two", "cannot read 'two'"),
        ("0,1,2,3", "no layer of the fuser would be left"),
        ("none.json", "cannot read a list of layers from none.json"),
        ("empty.json", "names no layer"),
    ],
)
def test_layers_that_cannot_be_removed_are_refused(
    layers: str,
    message: str,
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.json").write_text('{"drop_layers": [[]]}')
    with pytest.raises(SystemExit) as ended:
        main(["export", "--fuser", str(directory), "--output_dir", "small", "--drop_layers", layers])
    assert ended.value.code == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("small").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", "closed"], "add --output_dir"),
        (["--prune", "measured", "--output_dir", "small"], "needs --rows"),
        (["--prune", "closed", "--output_dir", "small", "--keep", "2"], "--keep belongs to"),
        (["--prune", "some", "--output_dir", "small"], "prune"),
        (["--keep", "2", "--output_dir", "small"], "belong to --prune"),
        (["--drop_layers", "2"], "add --output_dir"),
        (["--drop_layers", "2", "--prune", "closed", "--output_dir", "small"], "either --prune RULE or --drop_layers"),
        (["--drop_layers", "2", "--keep", "2", "--output_dir", "small"], "--keep belongs to"),
    ],
    ids=str,
)
def test_mistakes_are_named(
    options: list[str],
    message: str,
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["export", "--fuser", str(directory), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
