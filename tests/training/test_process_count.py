"""One, two and four processes, and accumulated batches: equal training through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import save_models, write_rows

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and data. 45 rows: the last step of an epoch has fewer rows than four processes."""
    folder = tmp_path_factory.mktemp("processes")
    save_models(folder)
    write_rows(folder / "rows.jsonl", 45)
    return folder


def fit(
    place: Path,
    name: str,
    batch_size: int,
    devices: int = 1,
    accumulate: int = 1,
    steps: int = 16,
    options: Sequence[str] = (),
) -> dict[str, torch.Tensor]:
    """The weights of a fuser trained by the command line.

    Gradients are steps, so that differences are those of the gradients; noise is drawn by each process for its rows.
    """
    folder = place / name
    config = {
        "seed_everything": 1,
        "model": {
            "receiver": {"path": str(place / "receiver")},
            "sharers": [{"path": str(place / "sharer")}],
            "fuser": {
                "hidden_dim": 8,
                "intermediate_dim": 12,
                "dropout": 0.0,
                "gate_init": 0.5,
                "gate_noise": "none",
                "token_alignment": "span",
            },
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "schedule": {"name": "constant_with_warmup", "warmup": 0.0},
        },
        "data": {
            "train": {
                "class_path": "c2c_lightning.data.sources.Messages",
                "init_args": {"path": str(place / "rows.jsonl")},
            },
            "validation_share": 0.0,
            "batch_size": batch_size,
            "stream_rows": 16,
            "cache_dir": str(place / "cache"),
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": devices,
            "strategy": "auto" if devices == 1 else "ddp",
            "accumulate_grad_batches": accumulate,
            "max_steps": steps,
            "default_root_dir": str(folder),
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "class_path": "c2c_lightning.training.checkpoint.Checkpoint",
                    "init_args": {"dirpath": f"{folder}/checkpoints", "save_last": True},
                },
                {
                    "class_path": "c2c_lightning.training.callbacks.export_fuser.ExportFuser",
                    "init_args": {"output_dir": f"{folder}/fuser"},
                },
            ],
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "c2c_lightning", "fit", "--config", str(folder / "config.yaml"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "fuser" / "model.safetensors")


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert set(ours) == set(theirs)
    return max(float((value - theirs[name]).abs().max()) for name, value in ours.items())


STREAM = ("--data.train.streaming", "true")


@pytest.fixture(scope="module", params=[(), STREAM], ids=["table", "stream"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return tuple(request.param)


@pytest.fixture(scope="module")
def one(place: Path, options: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """16 steps of 8 rows by one process; they change the weights by far more than the tolerance."""
    weights = fit(place, f"one-{len(options)}", 8, options=options)
    norms = [value for name, value in weights.items() if name.endswith("norm.weight")]
    assert max(float((value - 1).abs().max()) for value in norms) > 1e-3
    return weights


@pytest.mark.parametrize(("devices", "batch_size", "accumulate"), [(1, 4, 2), (2, 2, 2), (4, 2, 1)])
def test_equal_global_batches_give_equal_weights(
    devices: int, batch_size: int, accumulate: int, place: Path, options: tuple[str, ...], one: dict[str, torch.Tensor]
) -> None:
    name = f"{devices}-{batch_size}-{accumulate}-{len(options)}"
    assert difference(fit(place, name, batch_size, devices, accumulate, options=options), one) < 1e-6


def test_a_run_is_resumed_by_another_number_of_processes(
    place: Path, options: tuple[str, ...], one: dict[str, torch.Tensor]
) -> None:
    name = f"resumed-{len(options)}"
    fit(place, name, 4, accumulate=2, steps=9, options=options)
    last = str(place / name / "checkpoints" / "last.ckpt")
    resumed = fit(place, name, 4, devices=2, options=(*options, "--ckpt_path", last))
    assert difference(resumed, one) < 1e-6
