"""The authors' fusers to ours and back: bit for bit, or a named error."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export import convert_released, load_fuser, to_released
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from tests.export.released.authors_files import Heads, projector_state, same_released, write_released

GOLDEN = Path(__file__).parents[2] / "assets" / "golden" / "checkpoint"

# Pairs of paper tables 4, 6, 7 and figure 6: layers and heads of both sides, and the paper's parameter count.
QWEN3_SMALL, QWEN3_MEDIUM = (28, (8, 128)), (36, (8, 128))
QWEN25_HALF, QWEN25_ONE_AND_HALF, QWEN25_SEVEN = (24, (2, 64)), (28, (2, 128)), (28, (4, 128))
PUBLISHED = {
    "qwen3_0.6b+qwen2.5_0.5b": (QWEN3_SMALL, QWEN25_HALF, 477_848_056),
    "qwen3_0.6b+qwen3_4b": (QWEN3_SMALL, QWEN3_MEDIUM, 529_228_280),
    "qwen3_0.6b+qwen3_0.6b": (QWEN3_SMALL, QWEN3_SMALL, 529_228_280),
    "qwen3_0.6b+llama3.2_1b": (QWEN3_SMALL, (16, (8, 64)), 499_868_152),
    "qwen3_0.6b+qwen2.5_1.5b_math": (QWEN3_SMALL, QWEN25_ONE_AND_HALF, 485_188_088),
    "qwen3_0.6b+gemma3_1b": (QWEN3_SMALL, (26, (1, 256)), 485_188_088),
    "qwen3_1.7b+qwen2.5_1.5b": (QWEN3_SMALL, QWEN25_ONE_AND_HALF, 485_188_088),
    "qwen3_8b+qwen2.5_7b": (QWEN3_MEDIUM, QWEN25_SEVEN, 642_687_624),
    "qwen2.5_0.5b+qwen3_0.6b": (QWEN25_HALF, QWEN3_SMALL, 365_205_648),
}


def terminal_map(receiver_layers: int, sharer_layers: int) -> dict[int, int]:
    offset = sharer_layers - receiver_layers
    return {n: max(0, n + offset) for n in range(receiver_layers)}


def geometry(depth: int, heads: Heads) -> KVGeometry:
    return KVGeometry((LayerGeometry(heads[0], heads[1], heads[1]),) * depth)


@pytest.mark.parametrize("inner", ["", "final"])
def test_golden_checkpoint_round_trip(tmp_path: Path, inner: str) -> None:
    convert_released(GOLDEN / inner, tmp_path / "ours")
    saved = load_fuser(tmp_path / "ours")
    assert saved.description.layer_maps == [[2, 3, 4, 5]]
    assert saved.description.config == FuserConfig(hidden_dim=64, intermediate_dim=64, dropout=0.0, anneal_steps=8)
    expected = torch.tensor([[[0.8, -0.6, 0.4, -0.5], [0.5, 0.9, -0.7, -0.3]]])
    torch.testing.assert_close(saved.fuser.gate_logits(), expected)
    same_released(GOLDEN / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ablations_and_types_round_trip(tmp_path: Path, level: int, dtype: torch.dtype) -> None:
    source = write_released(tmp_path / "theirs", level=level, dtype=dtype, num_layers=4)
    convert_released(source, tmp_path / "ours")
    kind = ["c2c", "no_weights", "fuse", "project", "no_gates"][level]
    assert load_fuser(tmp_path / "ours").description.config.kind == kind
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


@pytest.mark.parametrize(
    ("layer_map", "alignment", "explicit"),
    [
        ({0: 0, 1: 0, 2: 1}, "terminal", None),
        ({0: 0, 1: 2, 2: 4}, "depth", None),
        ({1: 0, 2: 1}, "skip", None),
        ({0: 3, 2: 1}, "terminal", [[3, -1, 1]]),
    ],
)
def test_layer_maps_are_kept(
    tmp_path: Path, layer_map: dict[int, int], alignment: str, explicit: list[list[int]] | None
) -> None:
    source = write_released(tmp_path / "theirs", layer_map=layer_map)
    description = load_fuser(convert_released(source, tmp_path / "ours")).description
    assert (description.config.layer_alignment, description.config.layer_map) == (alignment, explicit)
    assert description.layer_maps == [[layer_map.get(n) for n in range(3)]]
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


def test_several_sharers(tmp_path: Path) -> None:
    first = write_released(tmp_path / "first", sharer=(1, 6))
    second = write_released(tmp_path / "second", sharer=(2, 5), layer_map={0: 0, 1: 0, 2: 1})
    convert_released([first, second], tmp_path / "ours", receiver="r", sharers=["a", "b"])
    description = load_fuser(tmp_path / "ours").description
    assert [sharer.name for sharer in description.sharers] == ["a", "b"]
    assert description.layer_maps == [[1, 2, 3], [0, 0, 1]]
    back = to_released(tmp_path / "ours", tmp_path / "back")
    same_released(first / "final", back / "sharer_0" / "final")
    same_released(second / "final", back / "sharer_1" / "final")


def test_one_directory_with_two_sharers(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    path = source / "final" / "projector_config.json"
    layers = json.loads(path.read_text())["0"]["1"]
    path.write_text(json.dumps({"0": {"2": layers, "1": layers}}))
    description = load_fuser(convert_released(source, tmp_path / "ours", sharers=["a", "b"])).description
    assert description.layer_maps == [[1, 2, 3], [1, 2, 3]]


def test_names_come_from_their_config(tmp_path: Path) -> None:
    (tmp_path / "models" / "big").mkdir(parents=True)
    (tmp_path / "models" / "big" / "config.json").write_text(json.dumps({"num_hidden_layers": 9}))
    model = {"base_model": "org/receiver", "teacher_model": "models/big"}
    source = write_released(tmp_path / "theirs", model=model)
    description = load_fuser(convert_released(source, tmp_path / "ours")).description
    assert description.receiver.name == "org/receiver"
    assert description.sharers[0].name == str(tmp_path / "models" / "big")
    # The folder knows how deep the sharer is, so the map is no terminal one.
    assert description.sharers[0].geometry.num_layers == 9
    assert description.config.layer_map == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, "auto"),
        ({"is_do_alignment": False, "alignment_strategy": "longest"}, "auto"),
        ({"is_do_alignment": True, "alignment_strategy": "first"}, "first"),
        ({"is_do_alignment": True, "alignment_strategy": "longest"}, "longest"),
    ],
)
def test_token_alignment_is_carried(tmp_path: Path, model: dict[str, Any], expected: str) -> None:
    source = write_released(tmp_path / "theirs", model=model)
    convert_released(source, tmp_path / "ours")
    assert load_fuser(tmp_path / "ours").description.config.token_alignment == expected
    settings = json.loads((to_released(tmp_path / "ours", tmp_path / "back") / "config.json").read_text())["model"]
    assert settings["is_do_alignment"] is (expected != "auto")
    assert settings["base_model"] == "org/receiver"
    if expected != "auto":
        assert settings["alignment_strategy"] == expected


def test_inert_projectors_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_released(tmp_path / "theirs")
    path = source / "final" / "projector_config.json"
    layout = json.loads(path.read_text())
    layout["0"]["1"]["0"].append([0, 1])
    path.write_text(json.dumps(layout))
    with caplog.at_level(logging.WARNING):
        convert_released(source, tmp_path / "ours")
    assert "1 projectors after the first" in caplog.text


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "TrivialProjector"}, r"projector_1\.pt is a TrivialProjector"),
        ({"init_args": {"use_swiglu": True}}, "unknown arguments"),
        ({"init_args": {"hidden_dim": 17}}, "2 kinds or sizes"),
    ],
)
def test_projectors_that_cannot_be_converted_are_named(tmp_path: Path, changes: Any, message: str) -> None:
    source = write_released(tmp_path / "theirs")
    edit_json(source / "final" / "projector_1.json", **changes)
    with pytest.raises(FuserFormatError, match=message):
        convert_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_ablation_by_switches(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs", level=4)
    for index in range(3):
        switches = {"ablation_level": 0, "use_gates": False}
        edit_json(source / "final" / f"projector_{index}.json", init_args=switches)
    assert load_fuser(convert_released(source, tmp_path / "ours")).description.config.kind == "no_gates"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda final: (final / "projector_1.pt").unlink(), r"projector_1\.pt is missing"),
        (lambda final: (final / "projector_1.json").unlink(), r"projector_1\.json is missing"),
        (lambda final: (final / "projector_config.json").unlink(), "no released fuser"),
        (lambda final: (final / "projector_0.json").write_text('{"cla'), "cut short"),
        (lambda final: (final / "projector_config.json").write_text('{"1": {}}'), "only one, 0"),
        (lambda final: (final / "projector_config.json").write_text('{"0": {"1": {}}}'), "fuses no layer"),
    ],
)
def test_damaged_directory(tmp_path: Path, damage: Any, message: str) -> None:
    source = write_released(tmp_path / "theirs")
    damage(source / "final")
    with pytest.raises(FuserFormatError, match=message):
        convert_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_cut_weights(tmp_path: Path, share: float) -> None:
    source = write_released(tmp_path / "theirs")
    path = source / "final" / "projector_2.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FuserFormatError, match=r"projector_2\.pt.*cut short"):
        convert_released(source, tmp_path / "ours")


def test_tensor_missing_or_superfluous(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    path = source / "final" / "projector_0.pt"
    state = torch.load(path, weights_only=True)
    state["surplus"] = state.pop("key_in.bias")
    torch.save(state, path)
    with pytest.raises(FuserFormatError, match=r"missing \['key_in.bias'\], superfluous \['surplus'\]"):
        convert_released(source, tmp_path / "ours")


def test_misshapen_tensor(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    for index in range(3):
        path = source / "final" / f"projector_{index}.pt"
        state = torch.load(path, weights_only=True)
        state["key_in.weight"] = state["key_in.weight"][:, :-1]
        torch.save(state, path)
    with pytest.raises(FuserFormatError, match=r"of the wrong shape \(sharers.0.groups.0.keys.features.input.weight"):
        convert_released(source, tmp_path / "ours")


class Malicious:
    """What a hostile pickle would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    payload = {**projector_state((2, 8), (1, 6)), "key_in.bias": Malicious(tmp_path / "run")}
    torch.save(payload, source / "final" / "projector_0.pt", pickle_module=pickle)
    with pytest.raises(FuserFormatError, match="Nothing in it was run"):
        convert_released(source, tmp_path / "ours")
    assert not (tmp_path / "run").exists()


def test_models_must_be_named_somewhere(tmp_path: Path) -> None:
    source = write_released(tmp_path / "theirs")
    (source / "config.json").unlink()
    with pytest.raises(FuserFormatError, match="Pass `receiver`"):
        convert_released(source, tmp_path / "ours")
    with pytest.raises(FuserFormatError, match="2 sharers are named"):
        convert_released(source, tmp_path / "ours", receiver="r", sharers=["a", "b"])
    assert load_fuser(convert_released(source, tmp_path / "ours", "r", "s")).description.sharers[0].name == "s"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_alignment": "span", "fusion_mode": "prompt"}, "token_alignment span and fusion_mode prompt"),
        ({"token_alignment": "span_template"}, "token_alignment span_template"),
    ],
)
def test_settings_that_the_released_code_does_not_have(tmp_path: Path, settings: Any, message: str) -> None:
    convert_released(write_released(tmp_path / "theirs"), tmp_path / "ours")
    edit_json(tmp_path / "ours" / "fuser_config.json", fuser=settings)
    with pytest.raises(FuserFormatError, match=message):
        to_released(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_taken_output_is_left_alone(tmp_path: Path) -> None:
    convert_released(write_released(tmp_path / "theirs"), tmp_path / "ours")
    with pytest.raises(FuserFormatError, match="not empty"):
        to_released(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("pair", PUBLISHED)
def test_published_sizes_are_ours(pair: str) -> None:
    receiver, sharer, parameters = PUBLISHED[pair]
    with torch.device("meta"):
        fuser = Fuser(geometry(*receiver), [geometry(*sharer)], FuserConfig())
    assert sum(parameter.numel() for parameter in fuser.parameters()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize("pair", PUBLISHED)
def test_published_shapes_load(tmp_path: Path, pair: str) -> None:
    """Last two layers in full width, as published in bf16."""
    (depth, heads), (sharer_depth, sharer_heads), _ = PUBLISHED[pair]
    layer_map = dict(list(terminal_map(depth, sharer_depth).items())[-2:])
    sizes = {"hidden": 1024, "inner": 1024, "dtype": torch.bfloat16}
    source = write_released(tmp_path / "theirs", heads, sharer_heads, layer_map, **sizes)
    saved = load_fuser(convert_released(source, tmp_path / "ours"))
    assert saved.description.receiver.geometry.num_layers == depth
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


@pytest.mark.slow
def test_smallest_published_pair_in_full(tmp_path: Path) -> None:
    pair = min(PUBLISHED, key=lambda name: PUBLISHED[name][2])
    (depth, heads), (sharer_depth, sharer_heads), parameters = PUBLISHED[pair]
    sizes = {"hidden": 1024, "inner": 1024, "dtype": torch.bfloat16}
    source = write_released(tmp_path / "theirs", heads, sharer_heads, terminal_map(depth, sharer_depth), **sizes)
    saved = load_fuser(convert_released(source, tmp_path / "ours"), dtype=torch.bfloat16)
    assert saved.description.config.layer_alignment == "terminal"
    assert sum(parameter.numel() for parameter in saved.fuser.parameters()) == parameters
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")
