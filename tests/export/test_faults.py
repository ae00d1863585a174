"""Broken and hostile fuser directories and checkpoints: a named error each, and never another fuser, file or code."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from c2c_lightning.cli import main
from c2c_lightning.errors import C2CError, CheckpointError, FuserFormatError, ModelLoadError
from c2c_lightning.export import convert_released, load_fuser, save_fuser
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.export.from_checkpoint import damage_of, export_checkpoint, load_checkpoint
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.export.released.authors_files import write_released
from tests.export.test_format import description, edited, fresh
from tests.tiny import tiny_pair

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_fuser(tmp_path / "fuser", fresh(description()), description())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=True), "no format version"),
        (lambda c: c.update(format_version=-1), "no format version"),
        (lambda c: c.update(format_version="1"), "no format version"),
        (lambda c: c.update(format_version=10**30), "pip install --upgrade"),
        (lambda c: c["receiver"].update(kv_geometry=[[2, -8, 8]] * 3), "has the size -8"),
        (lambda c: c["receiver"].update(kv_geometry=[[2, 10**30, 8]] * 3), "has the size 1000000"),
        (lambda c: c["receiver"].update(kv_geometry=[["two", 8, 8]] * 3), "has the size 'two'"),
        (lambda c: c["receiver"].update(kv_geometry="wide"), "kv_geometry must be"),
        (lambda c: c["receiver"].update(kv_geometry=[]), "kv_geometry must be"),
        (lambda c: c["receiver"].update(kv_geometry=[[2, 8]]), "kv_geometry must be"),
        (lambda c: c["receiver"].update(kv_geometry=[[2, 8, 8, "wide"]]), "kv_geometry must be"),
        (lambda c: c["receiver"].update(name=""), "name of a model is empty"),
        (lambda c: c["fuser"].update(initial_temperature=float("nan")), "must be a finite number"),
        (lambda c: c["fuser"].update(num_layers=10**7), "at most 1000"),
        (lambda c: c["fuser"].update(hidden_dim=10**30), "at most"),
        (lambda c: c["fuser"].update(sharer_kinds=[{"kind": "c2c"}]), "1 entries for 2 sharers"),
        (lambda c: c["fuser"].update(sharer_ordre="parallel"), "Did you mean 'sharer_order'"),
        (lambda c: c.update(sharers=[]), "it has no sharers"),
    ],
)
def test_values_that_no_fuser_has_are_named(saved: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edited(saved, change)
    with pytest.raises(FuserFormatError, match=message):
        load_fuser(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f'{{"format_version": 1, "fuser": {DEEP}}}', "nested too deeply"),
        ('{"format_version": 1, "format_version": 1}', r"\['format_version'\] are given more than once"),
        (f'{{"format_version": {"9" * 5000}}}', "not valid JSON"),
        ("[]", "holds no JSON object"),
        ("", "cut short"),
        ("\x00\x01", "cut short"),
    ],
)
def test_files_that_are_no_json_object_are_named(saved: Path, content: str, message: str) -> None:
    (saved / "fuser_config.json").write_text(content)
    with pytest.raises(FuserFormatError, match=message):
        load_fuser(saved)


def test_a_changed_tensor_is_noticed(saved: Path) -> None:
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(FuserFormatError, match="checksum"):
        load_fuser(saved)


def test_a_directory_without_checksum_still_loads(saved: Path) -> None:
    edited(saved, lambda c: c.pop("checksum"))
    load_fuser(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(saved: Path, tmp_path: Path, value: float) -> None:
    fuser = fresh(description())
    next(fuser.parameters()).data.flatten()[0] = value
    with pytest.raises(FuserFormatError, match="not finite: 1 tensors"):
        save_fuser(tmp_path / "other", fuser, description())
    assert not (tmp_path / "other").exists()
    tensors = load_file(saved / "model.safetensors")
    save_file({**tensors, **fuser.state_dict()}, saved / "model.safetensors")
    with pytest.raises(FuserFormatError, match="not finite: 1 tensors"):
        load_fuser(saved)


def test_released_weights_that_are_not_finite_or_damaged_are_not_converted(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    path = source / "final" / "projector_1.pt"
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    torch.save({**state, "key_in.bias": torch.full_like(state["key_in.bias"], torch.nan)}, path)
    with pytest.raises(FuserFormatError, match="not finite"):
        convert_released(source, tmp_path / "ours")
    place = whole.index(state["value_in.weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
    with pytest.raises(FuserFormatError, match=r"checksum of .* is wrong"):
        convert_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def checkpoint(path: Path, change: Callable[[dict[str, Any]], Any] = lambda c: None, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    described = description()
    state = {f"model.fuser.{name}": tensor for name, tensor in fresh(described).state_dict().items()}
    content = {"c2c": described.to_json(), "state_dict": state, "global_step": 7}
    change(content)
    torch.save(content, path)
    return path


NAME = "model.fuser.sharers.0.groups.0.keys.gate.logit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state_dict"].pop(NAME), "1 tensors are missing"),
        (lambda c: c["state_dict"].update({NAME: torch.zeros(7)}), "of the wrong shape"),
        (lambda c: c["state_dict"].update({NAME: torch.full((2,), torch.nan)}), "not finite"),
        (lambda c: c["c2c"]["fuser"].update(hidden_dim=17), "of the wrong shape"),
        (lambda c: c["c2c"].pop("receiver"), "'receiver' is missing"),
        (lambda c: c.update(c2c=None), "no format version"),
        (lambda c: c.pop("c2c"), "no checkpoint of `lightning fit`"),
        (lambda c: c.update(state_dict=[]), "no checkpoint of `lightning fit`"),
    ],
)
def test_checkpoints_that_hold_no_such_fuser_are_not_exported(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(C2CError, match=message):
        export_checkpoint(checkpoint(tmp_path / "x.ckpt", change), tmp_path / "fuser")
    assert not (tmp_path / "fuser").exists()


def test_a_changed_checkpoint_is_not_exported(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt")
    tensor = torch.load(path, weights_only=True)["state_dict"][
        "model.fuser.sharers.0.groups.0.keys.projector.output.weight"
    ]
    content = bytearray(path.read_bytes())
    content[content.index(tensor.numpy().tobytes()) + 3] ^= 64
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum of .* is wrong"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello"])
def test_files_that_are_no_checkpoint_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.timeout(30)
def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert "not a regular file" in str(damage_of(tmp_path / "pipe.ckpt"))
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_checkpoint(tmp_path / "pipe.ckpt")


def test_export_of_a_folder_names_the_mistake(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a fuser directory already"):
        export_checkpoint(saved, tmp_path / "other")
    checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"folder of checkpoints\. Name one of them, such as .*last\.ckpt"):
        export_checkpoint(tmp_path, tmp_path / "other")


def test_export_replaces_another_fuser_only_with_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = (checkpoint(tmp_path / f"{n}.ckpt", seed=n) for n in (1, 2))
    arguments = ["--output_dir", str(tmp_path / "fuser")]
    for path in (first, first):
        main(["export", "--ckpt_path", str(path), *arguments])
    before = (tmp_path / "fuser" / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        main(["export", "--ckpt_path", str(other), *arguments])
    assert re.search(r"holds another fuser already.*--overwrite", capsys.readouterr().err)
    assert (tmp_path / "fuser" / "model.safetensors").read_bytes() == before
    main(["export", "--ckpt_path", str(other), *arguments, "--overwrite"])
    assert (tmp_path / "fuser" / "model.safetensors").read_bytes() != before


def test_files_are_readable_under_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        saved = save_fuser(tmp_path / "fuser", fresh(description()), description())
        save_fuser(saved, fresh(description()), replace(description(), training=TrainingRecord()), overwrite=True)
    finally:
        os.umask(old)
    assert {oct(path.stat().st_mode & 0o777) for path in saved.iterdir()} == {"0o644"}


def test_a_prompt_template_of_a_fuser_directory_is_text_and_never_a_path(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    for name, pair in (
        ("receiver", tiny_pair("llama", 0, style="plain")),
        ("sharer", tiny_pair("llama", 1, style="plain")),
    ):
        for part in pair:
            part.save_pretrained(tmp_path / name)
    models = [str(tmp_path / name) for name in ("receiver", "sharer")]
    receiver, sharer = (load_frozen(name) for name in models)
    C2CModel(receiver, [sharer], FuserConfig(hidden_dim=8, intermediate_dim=8)).save_pretrained(tmp_path / "fuser")
    template = {"name": "mine", "jinja": str(secret)}
    edited(tmp_path / "fuser", lambda c: c["receiver"].update(prompt_template=template))
    model = C2CModel.from_pretrained(tmp_path / "fuser")
    model.save_pretrained(tmp_path / "again")
    assert "the secret" not in (tmp_path / "again" / "fuser_config.json").read_text()
    recorded = json.loads((tmp_path / "again" / "fuser_config.json").read_text())["receiver"]["prompt_template"]
    assert recorded["jinja"] == str(secret)


@pytest.mark.parametrize("entry", ["attn_implementation", "_attn_implementation"])
def test_a_model_folder_never_brings_attention_code(tmp_path: Path, entry: str) -> None:
    for part in tiny_pair("llama"):
        part.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: "somebody/kernel"}))
    with pytest.raises(ModelLoadError, match="somebody/kernel"):
        load_frozen(str(tmp_path / "model"))
