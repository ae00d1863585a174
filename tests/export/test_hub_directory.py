"""A hub on disk: round trip, export of a pair as an ordinary fuser, and damaged directories."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from c2c_lightning.errors import FuserConfigError, FuserFormatError
from c2c_lightning.export import load_fuser
from c2c_lightning.export.description import ModelReference
from c2c_lightning.export.hub_description import HubDescription
from c2c_lightning.export.hub_directory import HUB_CONFIG_NAME, load_hub, save_hub
from c2c_lightning.fuser.direction import Direction
from c2c_lightning.fuser.hub_fuser import HubFuser
from tests.fuser.test_hub_fuser import MODELS, fused, new_hub


def describe(hub: HubFuser) -> HubDescription:
    models = {name: ModelReference(f"models/{name}", geometry) for name, geometry in MODELS.items()}
    return HubDescription(hub.layout.config, models, hub.directions)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    hub = new_hub()
    return save_hub(tmp_path / "hub", hub, describe(hub))


def test_round_trip(saved: Path) -> None:
    loaded = load_hub(saved)
    assert loaded.description == describe(new_hub())
    for name, tensor in new_hub().state_dict().items():
        assert torch.equal(tensor, loaded.fuser.state_dict()[name]), name


def test_exported_pair_is_an_ordinary_fuser_directory(saved: Path, tmp_path: Path) -> None:
    direction = Direction("mixed", "qwen")
    load_hub(saved).export(direction, tmp_path / "pair")
    pair = load_fuser(tmp_path / "pair")
    assert [pair.description.receiver.name, pair.description.sharers[0].name] == ["models/qwen", "models/mixed"]
    assert torch.equal(fused(pair.fuser, direction), fused(new_hub().pair(direction), direction))


def test_unknown_model_is_named_and_nothing_is_written(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FuserConfigError, match="unknown model 'gemma'"):
        load_hub(saved).export(Direction("gemma", "qwen"), tmp_path / "pair")
    assert not (tmp_path / "pair").exists()


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / HUB_CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_other_latent(directory: Path) -> None:
    models = json.loads((directory / HUB_CONFIG_NAME).read_text())["models"]
    models["llama"]["latent"] = [5, 9]
    edit_config(directory, models=models)


def without_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors.popitem()
    save_file(tensors, directory / "model.safetensors")


def with_another_number(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    next(iter(tensors.values())).add_(1)
    save_file(tensors, directory / "model.safetensors")


def cut_short(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_other_latent, r"latent of the model 'llama' has \[layers, width\] \[5, 9\], but that of the hub has"),
        (without_a_tensor, "1 tensors are missing"),
        (with_another_number, "their checksum is another"),
        (cut_short, "may be cut short"),
        (lambda d: edit_config(d, directions=["llama_to_gemma"]), "unknown model 'gemma'"),
        (lambda d: edit_config(d, hub_format_version=99), "has format version 99"),
        (lambda d: edit_config(d, models={}), "unknown model"),
        (lambda d: (d / HUB_CONFIG_NAME).unlink(), "there is no hub at"),
    ],
    ids=["latent", "missing", "changed", "cut", "direction", "version", "models", "config"],
)
def test_a_damaged_hub_is_named(saved: Path, damage: Any, message: str) -> None:
    damage(saved)
    with pytest.raises(FuserFormatError, match=message):
        load_hub(saved)


def test_another_hub_is_not_replaced_without_being_asked(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    other = new_hub()
    torch.nn.init.zeros_(next(other.parameters()))
    with pytest.raises(FuserFormatError, match="holds another fuser already"):
        save_hub(saved, other, describe(other))
    assert (saved / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["hub"]
    save_hub(saved, other, describe(other), overwrite=True)
    assert torch.equal(next(load_hub(saved).fuser.parameters()), next(other.parameters()))


def test_a_hub_is_not_written_over_the_fuser_of_a_pair(saved: Path, tmp_path: Path) -> None:
    load_hub(saved).export(Direction("mixed", "qwen"), tmp_path / "pair")
    hub = new_hub()
    with pytest.raises(FuserFormatError, match="holds the fuser of one pair"):
        save_hub(tmp_path / "pair", hub, describe(hub), overwrite=True)
