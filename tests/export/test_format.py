"""The fuser directory: what is written comes back, and nothing else is taken."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export import (
    FuserDescription,
    ModelReference,
    TrainingRecord,
    format,
    load_fuser,
    save_fuser,
)
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry

WIDE, NARROW = LayerGeometry(2, 8, 8), LayerGeometry(1, 6, 4)
TEMPLATE = PromptTemplate("mine", "{{ messages[0].content }}")

RECEIVER = ModelReference("org/receiver", KVGeometry((WIDE, NARROW, WIDE)), "v1", "aaaa")
SHARER = ModelReference("org/sharer", KVGeometry((NARROW,) * 4), None, "bbbb", TEMPLATE)
TRAINING = TrainingRecord("org/data", 300, 76_800, {"learning rate": 1e-4}, {"val/loss": 0.91234})


def description(**choices: Any) -> FuserDescription:
    config = FuserConfig(hidden_dim=16, intermediate_dim=24, **choices)
    return FuserDescription(config, RECEIVER, (SHARER, replace(SHARER, name="org/other")), TRAINING)


def fresh(described: FuserDescription) -> Fuser:
    return Fuser(described.receiver.geometry, [sharer.geometry for sharer in described.sharers], described.config)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_fuser(tmp_path / "fuser", fresh(description()), description())


@pytest.mark.parametrize(
    "choices", [{}, {"layer_map": [[3, -1, 0], [0, 1, 2]]}, {"kind": "project"}, {"layer_alignment": "skip"}]
)
def test_round_trip_is_exact(tmp_path: Path, choices: dict[str, Any]) -> None:
    described = description(**choices)
    fuser = fresh(described)
    save_fuser(tmp_path / "fuser", fuser, described)
    back = load_fuser(tmp_path / "fuser")
    assert back.description == described
    assert not back.fuser.training
    mine, theirs = fuser.state_dict(), back.fuser.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_types_are_kept_on_disk_and_chosen_on_load(tmp_path: Path) -> None:
    save_fuser(tmp_path / "fuser", fresh(description()).to(torch.bfloat16), description())
    assert {tensor.dtype for tensor in load_file(tmp_path / "fuser/model.safetensors").values()} == {torch.bfloat16}
    assert {p.dtype for p in load_fuser(tmp_path / "fuser").fuser.parameters()} == {torch.float32}
    loaded = load_fuser(tmp_path / "fuser", dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.fuser.parameters()} == {torch.bfloat16}


def test_loaded_fuser_trains(saved: Path) -> None:
    fuser = load_fuser(saved).fuser
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in fuser.parameters())


def test_card_says_what_it_is(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    for part in (
        "base_model:",
        "- org/sharer",
        "org/data",
        "optimizer steps | 300",
        "0.9123",
        "C2CModel.from_pretrained",
    ):
        assert part in card


def test_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    described = replace(description(), receiver=replace(RECEIVER, name=str(tmp_path / "my-model")))
    card = (save_fuser(tmp_path / "fuser", fresh(described), described) / "README.md").read_text()
    assert "my-model" in card
    assert str(tmp_path) not in card


def test_description_is_readable(saved: Path) -> None:
    text = (saved / "fuser_config.json").read_text()
    assert '"kv_geometry": [[2,8,8],[1,6,4],[2,8,8]]' in "".join(text.split("\n")).replace("  ", "").replace("[ ", "[")
    assert len(text.splitlines()) < 120


def edited(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "fuser_config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=2), "version 2.*pip install --upgrade"),
        (lambda c: c.pop("format_version"), "no format version"),
        (lambda c: c.pop("receiver"), "'receiver' is missing"),
        (lambda c: c["sharers"][0].pop("kv_geometry"), "'kv_geometry' is missing"),
        (lambda c: c["fuser"].update(colour="red"), r"unknown fuser settings \['colour'\]"),
        (lambda c: c["fuser"].update(kind="bogus"), "bogus"),
        (lambda c: c["fuser"].update(num_layers="many"), "many"),
        (lambda c: c["fuser"].update(num_layers=2), "at least 3"),
        (lambda c: c["fuser"].update(layer_alignment="depth"), "records the layer maps"),
        (lambda c: c["sharers"][1].update(layer_map=[0, 0, 0]), "The file was edited"),
        (lambda c: c.update(receiver="name"), "not the description of a fuser"),
    ],
)
def test_description_is_read_strictly(saved: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edited(saved, change)
    with pytest.raises(FuserFormatError, match=message):
        load_fuser(saved)


def retensored(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


NAME = "sharers.0.groups.0.keys.gate.logit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), rf"1 tensors are missing \({NAME}\)"),
        (lambda t: t.update(surplus=torch.zeros(1)), r"1 tensors are not part of this fuser \(surplus\)"),
        (lambda t: t.update({NAME: torch.zeros(7)}), r"wrong shape \(.*\(7,\) instead of \(2,\)"),
        (lambda t: t.update({NAME: torch.zeros(2, dtype=torch.int64)}), "not floating-point"),
    ],
)
def test_tensors_are_read_strictly(saved: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    retensored(saved, change)
    with pytest.raises(FuserFormatError, match=message):
        load_fuser(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "fuser_config.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_cut_file(saved: Path, name: str, share: float) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FuserFormatError, match="may be cut short"):
        load_fuser(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), "has no weights"),
        (lambda d: (d / "fuser_config.json").unlink(), "holds no fuser_config.json. Name a directory"),
        (lambda d: ((d / "fuser_config.json").unlink(), (d / "last.ckpt").touch()), "lightning export"),
        (lambda d: ((d / "fuser_config.json").unlink(), (d / "projector_config.json").touch()), "lightning convert"),
    ],
)
def test_wrong_directory_says_how_to_mend_it(saved: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(saved)
    with pytest.raises(FuserFormatError, match=message):
        load_fuser(saved)


def test_file_instead_of_directory(saved: Path) -> None:
    with pytest.raises(FuserFormatError, match="is a file"):
        load_fuser(saved / "README.md")
    with pytest.raises(FuserFormatError, match="is a file"):
        save_fuser(saved / "README.md", fresh(description()), description())


def test_nothing_there_and_no_network(tmp_path: Path) -> None:
    with pytest.raises(FuserFormatError, match="no such local directory"):
        load_fuser(tmp_path / "nothing" / "here")
    with pytest.raises(FuserFormatError, match="org/nothing"):
        load_fuser("org/nothing")


def test_hub_gives_data_only(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **kwargs: Any) -> str:
        asked.update(kwargs, name=name)
        return str(saved)

    monkeypatch.setattr(format, "snapshot_download", download)
    load_fuser("org/fuser", revision="v2")
    assert asked == {"name": "org/fuser", "revision": "v2", "allow_patterns": ["*.json", "*.safetensors", "*.md"]}

    def absent(name: str, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(format, "snapshot_download", absent)
    with pytest.raises(FuserFormatError, match=r"the hub at .* cannot be reached"):
        load_fuser("org/fuser")


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(format, "model_card", fail)
    with pytest.raises(OSError, match="disk full"):
        save_fuser(tmp_path / "fuser", fresh(description()), description())
    assert list(tmp_path.iterdir()) == []


def test_failed_overwrite_leaves_the_old_fuser(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(format, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_fuser(saved, fresh(description()), description(), overwrite=True)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["fuser"]


def test_overwrite_keeps_other_files(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    described = replace(description(), training=None)
    save_fuser(saved, fresh(described), described, overwrite=True)
    assert load_fuser(saved).description == described
    assert (saved / "notes.txt").read_text() == "mine"


def test_permissions_are_ordinary(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert os.stat(saved).st_mode == os.stat(tmp_path / "plain").st_mode


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_files_that_are_no_fusers_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FuserFormatError, match=f"holds no fuser, but has {name}"):
        save_fuser(tmp_path, fresh(description()), description())
    assert (tmp_path / name).read_text() == "mine"
    save_fuser(tmp_path, fresh(description()), description(), overwrite=True)
    load_fuser(tmp_path)
