"""Two processes train what one trains, with the fuser copied or sharded, compiled or not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.export.from_checkpoint import export_checkpoint
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.training.module import C2CModule
from tests.training.two_processes import conversations, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCRIPT = Path(__file__).parent / "two_processes.py"

SHARDED = {"strategy": "fsdp2", "settings": {"shard_models": True, "activation_checkpointing": True}}

# What each run in two processes must agree with, in one. One span, several, and none at all are in other processes.
LIKE_ONE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ddp": ({"count": 20, "unfused": True}, {"strategy": "ddp"}),
    "ddp_compiled": ({"count": 3}, {"strategy": "ddp", "settings": {"compile_fuser": "aot_eager"}}),
    "fsdp2": ({"count": 3}, {"strategy": "fsdp2"}),
    "fsdp2_models": ({"count": 3, "unfused": True, "span_order": "one_pass"}, SHARDED),
}
CLOSED_FORMS: dict[str, dict[str, Any]] = {
    f"ridge_{mode}": {
        "kind": "ridge",
        "options": {"num_sources": 1, "num_tokens": 64, "trainable": True},
        "fusion_mode": mode,
    }
    for mode in ("prefill", "decode")
}
GATES = {"shut": {"gate_init": -1.0}, "noisy": {"gate_noise": "logistic"}}
ADAM = {"plain": False, "epoch": 2}


@pytest.fixture(scope="module")
def one(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., C2CModule]:
    """Makes runs in this process."""
    folder = str(tmp_path_factory.mktemp("one"))
    return lambda **settings: run(models=str(models), folder=folder, **settings)


@pytest.fixture(scope="module")
def fresh(one: Callable[..., C2CModule]) -> dict[str, Any]:
    """An untrained fuser."""
    return result(checkpoint(one(name="fresh", count=1, lr=0.0)).parent)


@pytest.fixture(scope="module")
def begun(one: Callable[..., C2CModule]) -> Path:
    """The checkpoint of a run in one process."""
    return checkpoint(one(name="begun", count=2, **ADAM))


@pytest.fixture(scope="module")
def two(models: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs in two processes, made by one pair of them."""
    folder = tmp_path_factory.mktemp("two")
    runs = [{"name": name, **common, **own} for name, (common, own) in LIKE_ONE.items()]
    runs += [{"name": name, "count": 2, "strategy": "ddp", **choices} for name, choices in GATES.items()]
    runs += [{"name": name, "count": 1, "strategy": "ddp", **choices} for name, choices in CLOSED_FORMS.items()]
    runs += [{"name": "begun", "count": 2, "strategy": "fsdp2", **ADAM}]
    runs += [{"name": "resumed", "count": 4, "strategy": "fsdp2", "resume": str(begun), **ADAM}]
    settings = json.dumps([{"models": str(models), "folder": str(folder), **settings} for settings in runs])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def checkpoint(made: C2CModule) -> Path:
    return Path(made.trainer.default_root_dir) / "run.ckpt"


def result(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "result.pt", weights_only=True)
    return loaded


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    weights = theirs["weights"]
    assert set(ours["weights"]) == set(weights)
    return max(float((value - weights[name]).abs().max()) for name, value in ours["weights"].items())


@pytest.mark.parametrize("name", LIKE_ONE)
def test_two_processes_are_one_with_the_same_rows(
    name: str, one: Callable[..., C2CModule], two: Path, fresh: dict[str, Any]
) -> None:
    """Unequal token counts between processes and between accumulated batches; only the order of sums differs."""
    # Adam divides by the gradient's own size, which makes rounding in tiny gradients large: plain steps show the maths.
    here = result(checkpoint(one(name=name, **LIKE_ONE[name][0])).parent)
    there = result(two / name)
    assert difference(here, fresh) > 0.01
    assert difference(here, there) < 1e-6
    assert there["val/loss"] == pytest.approx(here["val/loss"], rel=1e-6)
    assert there["val/loss_receiver"] == pytest.approx(here["val/loss_receiver"], rel=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_gates_that_are_shut_or_noisy(name: str, two: Path) -> None:
    validated = result(two / name)
    assert (validated["val/loss"] == validated["val/loss_receiver"]) == (name == "shut")


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_closed_form_of_one_process_is_that_of_all(name: str, two: Path) -> None:
    """Each process has other rows, on which it would fit another map."""
    first, second = (torch.load(two / name / f"process_{rank}.pt", weights_only=True) for rank in range(2))
    assert difference({"weights": first}, {"weights": second}) == 0


def test_a_sharded_runs_checkpoint_is_an_ordinary_one(two: Path, tmp_path: Path) -> None:
    """Loaded, validated and exported by one process."""
    whole = result(two / "fsdp2_models")
    loaded = C2CModule.load_from_checkpoint(two / "fsdp2_models" / "run.ckpt")
    weights = {name.removeprefix("model.fuser."): value for name, value in loaded.state_dict().items()}
    assert difference(whole, {"weights": {name: weights[name] for name in whole["weights"]}}) == 0
    export_checkpoint(two / "fsdp2_models" / "run.ckpt", tmp_path / "fuser")
    exported, written = (
        C2CModel.from_pretrained(path) for path in (tmp_path / "fuser", two / "fsdp2_models" / "fuser")
    )
    batch = conversations(loaded, range(1, 4))
    loaded.eval()
    with torch.no_grad():
        losses = [model.response_loss(batch) for model in (loaded.model, exported, written)]
    assert losses[0] == losses[1] == losses[2]


def test_a_run_goes_on_sharded_and_back(one: Callable[..., C2CModule], begun: Path, two: Path) -> None:
    """With the optimizer's state: from one process to two that shard it, and from these to one."""
    onward = result(checkpoint(one(name="onward", count=4, resume=str(begun), **ADAM)).parent)
    assert difference(onward, result(begun.parent)) > 0.003
    assert difference(onward, result(two / "resumed")) < 5e-4
    # One step only: two processes count half as many batches, so what is an epoch's end there is its middle here.
    step = result(checkpoint(one(name="step", count=3, resume=str(begun), **ADAM)).parent)
    back = result(checkpoint(one(name="back", count=3, resume=str(two / "begun" / "run.ckpt"), **ADAM)).parent)
    assert difference(step, result(begun.parent)) > 0.0005
    assert difference(step, back) < 1e-4
