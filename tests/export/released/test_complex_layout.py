"""C2C-C of the authors to ours and back: bit for bit, with the same numbers, or a named error."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.errors import C2CError, FuserFormatError
from c2c_lightning.export import convert_released, load_fuser, to_released
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV
from tests.export.released.authors_complex_files import RECIPE, write_complex
from tests.export.released.authors_files import same_released, write_released
from tests.fuser.complex_twin import Twin

CHOICES: dict[str, dict[str, Any]] = {
    "recipe": {},
    "no dropout": {"dropout": 0.0},
    "relu, flat": {"use_swiglu": False, "activation": "relu", "use_layer_norm": False, "dropout": 0.0},
    "deep": {"use_swiglu": False, "num_layers": 5, "use_residual": False},
    "linear": {"num_layers": 1, "use_concat": False},
    "scalar": {"weight_granularity": "scalar", "weight_depends_on_input": False, "scalar_temperature": 0.5},
    "token": {"weight_granularity": "token", "weight_input_features": "target_key"},
    "head": {"weight_granularity": "head", "weight_input_features": "both"},
    "value": {"weight_granularity": "value", "weight_input_features": "target_projected_both"},
    "rest": {"preserve_target_weight": True, "weight_input_features": "target_value"},
    "none": {"preserve_target_weight": True, "add_self": False, "use_gumbel": False},
}


@pytest.mark.parametrize("name", CHOICES)
def test_round_trip(tmp_path: Path, name: str) -> None:
    source = write_complex(tmp_path / "theirs", **CHOICES[name])
    convert_released(source, tmp_path / "ours")
    assert load_fuser(tmp_path / "ours").description.config.kind == "c2c_c"
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write_complex(tmp_path / "theirs", dtype=dtype, layer_map={0: 3, 2: 1})
    assert load_fuser(convert_released(source, tmp_path / "ours")).description.layer_maps == [[3, None, 1]]
    same_released(source / "final", to_released(tmp_path / "ours", tmp_path / "back") / "final")


def test_choices_are_carried(tmp_path: Path) -> None:
    source = write_complex(tmp_path / "theirs", **CHOICES["none"])
    config = load_fuser(convert_released(source, tmp_path / "ours")).description.config
    parts = ComplexConfig(weight_hidden_dim=10, receiver_share="none")
    assert config == FuserConfig(kind="c2c_c", hidden_dim=12, anneal_steps=112, gate_noise="none", complex=parts)


def test_what_a_file_leaves_out_is_the_constructors(tmp_path: Path) -> None:
    """Their constructor's defaults are not the recipe's."""
    left_out = {"hidden_dim", "num_layers", "use_swiglu", "use_concat", "scalar_temperature", "preserve_target_weight"}
    left_out |= {"weight_granularity", "weight_depends_on_input", "weight_input_features", "final_temperature"}
    values = {"hidden_dim": 512, "num_layers": 2, "use_swiglu": False, "use_concat": False}
    values |= {"weight_granularity": "scalar", "weight_depends_on_input": False}
    source = write_complex(tmp_path / "theirs", **values)
    for path in (source / "final").glob("projector_?.json"):
        content = json.loads(path.read_text())
        content["init_args"] = {k: v for k, v in content["init_args"].items() if k not in left_out}
        path.write_text(json.dumps({**content, "init_args": {**content["init_args"], "pos_emb": True}}))
    config = load_fuser(convert_released(source, tmp_path / "ours")).description.config
    assert (config.hidden_dim, config.num_layers, config.final_temperature) == (512, 2, 0.01)
    parts = config.complex
    assert (parts.swiglu, parts.concat, parts.weight_granularity, parts.weight_temperature) == (
        *(False, False),
        "scalar",
        0.005,
    )
    assert (parts.weight_features, parts.receiver_share) == ("key", "rest")


@pytest.mark.parametrize("name", ["recipe", "relu, flat", "scalar", "head", "rest"])
def test_converted_numbers_are_theirs(tmp_path: Path, name: str) -> None:
    """The converted fuser computes what plain layers with the authors' tensors do."""
    torch.manual_seed(0)
    source = write_complex(tmp_path / "theirs", sharer=(2, 8), **CHOICES[name])
    saved = load_fuser(convert_released(source, tmp_path / "ours"))
    mine = [LayerKV(torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)) for _ in range(3)]
    theirs = [LayerKV(torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)) for _ in range(4)]
    fused = saved.fuser(mine, [theirs], FusionStep(0, 3, (FusedTokens.all_tokens(2, 3, torch.device("cpu")),)))
    for n in range(3):
        twin = Twin((2, 8), (2, 8), saved.description.config)
        fill(twin, torch.load(source / "final" / f"projector_{n}.pt", weights_only=True))
        keys, values = twin((theirs[n + 1].keys, theirs[n + 1].values), (mine[n].keys, mine[n].values), None, 1.0)
        torch.testing.assert_close(fused[n].keys, keys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fused[n].values, values, rtol=1e-5, atol=1e-5)
        assert torch.equal(fused[n].keys, mine[n].keys) == (n == 1 and name != "rest")


def fill(twin: Twin, state: dict[str, torch.Tensor]) -> None:
    """The authors' tensors into a twin, in the order in which both list their layers."""
    for mlp, theirs in (
        ("key_mlp", "key_projection"),
        ("value_mlp", "value_projection"),
        ("weight_mlp", "weight_hidden"),
    ):
        part, maps, norms = getattr(twin, mlp), [], []
        places = sorted({int(name.split(".")[2]) for name in state if name.startswith(f"{theirs}.")})
        for place in places:
            here = {n.split(".", 3)[3]: t for n, t in state.items() if n.startswith(f"{theirs}.layers.{place}.")}
            (norms if here.get("weight", torch.empty(0, 0)).ndim == 1 else maps).append(here)
        for i, here in enumerate(maps):
            if "gate_proj.weight" in here:
                load(part.maps[i], here["gate_proj.weight"], here["gate_proj.bias"])
                load(part.ups[i], here["up_proj.weight"], here["up_proj.bias"])
            else:
                load(part.maps[i], here["weight"], here["bias"])
        for norm, here in zip(part.norms, norms, strict=False):
            load(norm, here["weight"], here["bias"])
    linears = {"key_head": "key_weight_head", "value_head": "value_weight_head"}
    for mine, theirs in {**linears, "key_combiner": "key_combiner", "value_combiner": "value_combiner"}.items():
        if f"{theirs}.weight" in state:
            load(getattr(twin, mine), state[f"{theirs}.weight"], state[f"{theirs}.bias"])
    for name in ("key_weight", "value_weight", "gate_logit"):
        if name in state:
            getattr(twin, name).data = state[name]


def load(part: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    assert (part.weight.shape, part.bias.shape) == (weight.shape, bias.shape)
    part.weight.data, part.bias.data = weight, bias


def test_several_sharers(tmp_path: Path) -> None:
    first = write_complex(tmp_path / "first")
    second = write_complex(tmp_path / "second", sharer=(2, 5))
    convert_released([first, second], tmp_path / "ours", receiver="r", sharers=["a", "b"])
    back = to_released(tmp_path / "ours", tmp_path / "back")
    same_released(first / "final", back / "sharer_0" / "final")
    same_released(second / "final", back / "sharer_1" / "final")


def test_sharers_of_different_kinds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = write_complex(tmp_path / "first"), write_released(tmp_path / "second", level=2, num_layers=4)
    convert_released([first, second], tmp_path / "ours", "r", ["a", "b"])
    kinds = load_fuser(tmp_path / "ours").description.config.kinds(2)
    assert [kind.__name__ for kind, _ in kinds] == ["ComplexKind", "FuseKind"]
    assert "different gate schedules" in caplog.text
    back = to_released(tmp_path / "ours", tmp_path / "back")
    same_released(first / "final", back / "sharer_0" / "final")
    same_released(second / "final", back / "sharer_1" / "final")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate_granularity": "token"}, "gate_granularity 'token'"),
        ({"gate_depends_on_input": True}, "gate_depends_on_input True"),
        ({"weight_granularity": "scalar"}, "weight_granularity 'scalar' .* must be `token`"),
        ({"weight_granularity": "token", "weight_depends_on_input": False}, "'token' .* must be `scalar`"),
        ({"weight_input_features": "hidden"}, "weight_input_features 'hidden' .*known are target_key"),
        ({"activation": "tanh"}, "activation 'tanh' .*known are gelu"),
        ({"use_selector": True}, r"unknown arguments \['use_selector'\]"),
        ({"scalar_temperature": 0.0}, "weight_temperature is 0"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    source = write_complex(tmp_path / "theirs")
    for path in (source / "final").glob("projector_?.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "init_args": {**content["init_args"], **arguments}}))
    with pytest.raises(C2CError, match=message):
        convert_released(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_tensors_that_do_not_fit_the_arguments(tmp_path: Path) -> None:
    source = write_complex(tmp_path / "theirs", use_swiglu=False)
    for path in (source / "final").glob("projector_?.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "init_args": {**content["init_args"], "use_swiglu": True}}))
    with pytest.raises(FuserFormatError, match=r"does not fit its constructor arguments: missing \['key_projection"):
        convert_released(source, tmp_path / "ours")


def test_parameters_of_the_papers_pair() -> None:
    """Qwen3 4B to 0.6B as in table 9, by the recipe's sizes, counted layer by layer by hand."""
    width, inner, heads = 1024, 1024, 8
    linear = lambda i, o: i * o + o  # noqa: E731
    hidden = 2 * linear(width, inner) + 2 * inner
    side = 2 * hidden + linear(inner, width) + linear(2 * width, width) + linear(inner, heads)
    weighting = linear(2 * width, inner) + 2 * inner + linear(inner, inner)
    with torch.device("meta"):
        geometries = [KVGeometry((LayerGeometry(8, 128, 128),) * depth) for depth in (28, 36)]
        fuser = Fuser(geometries[0], [geometries[1]], FuserConfig(kind="c2c_c"))
    assert sum(parameter.numel() for parameter in fuser.parameters()) == 28 * (2 * side + weighting + 1)
    assert RECIPE["num_layers"] == FuserConfig().num_layers == 3
