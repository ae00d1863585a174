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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune", "closed"], "add --output_dir"),
        (["--prune", "measured", "--output_dir", "small"], "needs --rows"),
        (["--prune", "closed", "--output_dir", "small", "--keep", "2"], "--keep belongs to"),
        (["--prune", "some", "--output_dir", "small"], "prune"),
        (["--keep", "2", "--output_dir", "small"], "belong to --prune"),
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
