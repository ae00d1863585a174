"""A fuser kind defined outside of the package: trained, saved, loaded, exported, used and counted like any other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from c2c_lightning.cli import main
from c2c_lightning.errors import FuserConfigError, FuserFormatError
from c2c_lightning.export import load_fuser, to_released
from c2c_lightning.fuser.config import FuserConfig, SharerKind
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.kind import FuserKind, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.flops import fuse
from c2c_lightning.profiling.shapes import PairShape
from tests.fuser.outside_kind import LowRankKind
from tests.profiling.pairs import tiny

FIT = str(Path(__file__).parents[1] / "conf" / "fit.yaml")
CLASS = "tests.fuser.outside_kind.LowRankKind"
NAME = "tests_low_rank"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `lightning fit` with the kind given by its class path."""
    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", FIT, "--model.fuser.kind", CLASS, "--model.fuser.options", '{"rank": 3}'])
    return folder / "run"


def test_fit_trains_and_saves_it(run: Path) -> None:
    content = json.loads((run / "fuser" / "fuser_config.json").read_text())
    assert content["fuser"]["kind"] == NAME
    assert content["kind_classes"] == {NAME: CLASS}
    saved = load_fuser(run / "fuser")
    assert isinstance(saved.fuser.sharers[0].groups[0], LowRankKind)
    assert saved.fuser.sharers[0].kind_config.rank == 3
    assert (saved.fuser.sharers[0].groups[0].gate.logit != 1.0).any(), "the gates have learned"


def test_export_gives_the_fuser_of_the_run(run: Path, tmp_path: Path) -> None:
    main(["export", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--output_dir", str(tmp_path / "fuser")])
    ours, theirs = (load_fuser(folder).fuser.state_dict() for folder in (tmp_path / "fuser", run / "fuser"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_it_answers(run: Path) -> None:
    model = C2CModel.from_pretrained(run / "fuser")
    assert isinstance(model.chat([[{"role": "user", "content": "Where is it?"}]], max_new_tokens=2)[0], str)


def edited(run: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((run / "fuser" / "model.safetensors").read_bytes())
    content = json.loads((run / "fuser" / "fuser_config.json").read_text())
    change(content)
    (folder / "fuser_config.json").write_text(json.dumps(content))
    return folder


def test_an_unknown_class_is_refused_and_not_imported(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "unknown_kinds.py").write_text("raise SystemExit('imported by a fuser directory')")
    monkeypatch.syspath_prepend(tmp_path)

    def rename(content: dict[str, Any]) -> None:
        content["fuser"]["kind"] = "unknown"
        content["kind_classes"] = {"unknown": "unknown_kinds.Unknown"}

    with pytest.raises(FuserFormatError, match=r"class unknown_kinds\.Unknown.*does not know.*`import unknown_kinds`"):
        load_fuser(edited(run, tmp_path / "fuser", rename))
    path = "unknown_kinds.Unknown"
    bare = edited(run, tmp_path / "bare", lambda c: (c["fuser"].update(kind=path), c.pop("kind_classes")))
    with pytest.raises(FuserFormatError, match=r"unknown_kinds\.Unknown"):
        load_fuser(bare)


def test_another_class_of_the_same_name_is_refused(run: Path, tmp_path: Path) -> None:
    change = lambda c: c.update(kind_classes={NAME: "somewhere.else.LowRankKind"})  # noqa: E731
    with pytest.raises(FuserFormatError, match=f"here '{NAME}' is {CLASS}"):
        load_fuser(edited(run, tmp_path / "fuser", change))
    with pytest.raises(FuserConfigError, match=r"Register .* by another name"):
        register_kind(NAME)(type("Other", (LowRankKind,), {}))


@pytest.mark.slow
def test_a_process_without_the_class_refuses_and_one_that_lists_its_module_loads(run: Path) -> None:
    code = f"from c2c_lightning.export import load_fuser; load_fuser({str(run / 'fuser')!r}); print('loaded')"

    def process(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )

    refused = process()
    assert refused.returncode == 1
    assert f"class {CLASS}, which this process does not know" in refused.stderr
    assert process(C2C_FUSER_KINDS="tests.fuser.outside_kind").stdout.strip() == "loaded"


def test_the_authors_layout_cannot_express_it(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FuserFormatError, match=f"the fuser kind {NAME}"):
        to_released(run / "fuser", tmp_path / "theirs")


@pytest.mark.parametrize("kind", [NAME, "c2c", "project", "c2c_c", "low_rank", "rotary_free"])
@pytest.mark.parametrize("granularity", ["head_merged", "value"])
def test_operations_are_counted_as_pytorch_counts_them(kind: str, granularity: str) -> None:
    parts = {"c2c_c": {"weight_granularity": granularity, "weight_hidden_dim": 7}, "low_rank": {"rank": 8}}
    model = tiny(options=parts.get(kind, {}), kind=kind).build("cpu")
    group = model.fuser.sharers[0].groups[0]
    receiver, sharer = model.receiver.geometry.layers[0], model.sharers[0].geometry.layers[0]

    def packed(geometry: LayerGeometry) -> PackedKV:
        shape = (3, 5, geometry.kv_heads)
        return PackedKV(torch.randn(*shape, geometry.key_dim), torch.randn(*shape, geometry.value_dim))

    with FlopCounterMode(display=False) as counter:
        group.residual(packed(receiver), packed(sharer), (None, None))
    assert counter.get_total_flops() == fuse(PairShape.of(model).fusers[0], 5)


def test_each_sharer_has_a_kind_of_its_own() -> None:
    geometry = KVGeometry((LayerGeometry(2, 4, 4),) * 3)
    config = FuserConfig(
        hidden_dim=8, intermediate_dim=8, sharer_kinds=[SharerKind(), SharerKind(LowRankKind, {"rank": 2})]
    )
    fuser = Fuser(geometry, [geometry, geometry], config)
    assert fuser.sharers[0].kind_config.hidden_dim == 8
    roles = fuser.parameter_roles()
    parameters = [*roles.weights, *roles.norms, *roles.gates]
    assert {id(p) for p in parameters} == {id(p) for p in fuser.parameters()}
    assert (len(parameters), len(roles.gates)) == (len(list(fuser.parameters())), 3)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kind": "C2C"}, r"kind is 'C2C', but must be one of c2c_c, c2c, .*Did you mean 'c2c'\?"),
        ({"kind": "nowhere.Kind"}, "Import its module first"),
        ({"sharer_order": "sequentail"}, "one of sequential, parallel. Did you mean 'sequential'"),
        ({"gate_noise": "gumble"}, "Did you mean 'gumbel'"),
        ({"fusion_mode": "Prompt"}, "one of prefill, replace, prompt, decode. Did you mean 'prompt'"),
        ({"span_order": "onepass"}, "Did you mean 'one_pass'"),
        ({"layer_alignment": "terminl"}, "Did you mean 'terminal'"),
        ({"token_alignment": "spans"}, "Did you mean 'span'"),
        ({"temperature_schedule": "cosine"}, "one of geometric, linear"),
        ({"hidden_dim": "64"}, "hidden_dim is '64', but must be an integer"),
        ({"hidden_dim": -1}, "hidden_dim is -1, but must be at least 1"),
        ({"num_layers": 10**7}, "num_layers is 10000000, but must be at most 1000"),
        ({"initial_temperature": float("nan")}, "must be a finite number"),
        ({"final_temperature": 0.0}, "must be above 0"),
        ({"anneal_steps": 10**400}, "must be at most"),
        ({"options": {"hiden_dim": 3}}, r"unknown 'c2c' settings \['hiden_dim'\]. Did you mean 'hidden_dim'"),
        ({"sharer_kinds": [SharerKind(options={"depth": 3})]}, r"unknown 'c2c' settings \['depth'\]"),
    ],
    ids=str,
)
def test_choices_are_checked_wherever_a_configuration_is_made(choices: dict[str, Any], message: str) -> None:
    # Not by the constructor, whose arguments the type checker of the tests refuses first.
    config = object.__new__(FuserConfig)
    for name, value in {**vars(FuserConfig()), **choices}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(FuserConfigError, match=message):
        config.__post_init__()


def test_a_kind_without_operations_says_so() -> None:
    class BareKind(FuserKind):
        residual = LowRankKind.residual

    with pytest.raises(FuserConfigError, match=r"define `BareKind\.linear_maps`"):
        BareKind.linear_maps(LayerGeometry(1, 1, 1), LayerGeometry(1, 1, 1), None)
