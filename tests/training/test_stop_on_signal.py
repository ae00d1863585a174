"""A signal stops a run after the current step, with a checkpoint from which it resumes as if nothing had happened."""

import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from c2c_lightning.cli import main
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.training.callbacks.stop_on_signal import RunStopped, StopOnSignal
from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, module, trainer, write_rows

ROOT = Path(__file__).parents[2]


class Signal(Callback):
    """Sends a signal to this process and its data loader workers in a hook of a batch or validation."""

    def __init__(self, hook: str, number: int, count: int = 3) -> None:
        def send(*args: Any) -> None:
            self.calls += 1
            if self.calls == count:
                for pid in (*(child.pid for child in multiprocessing.active_children()), os.getpid()):
                    os.kill(pid, number)
                time.sleep(0.05)

        self.calls = 0
        setattr(self, hook, send)


def fit(
    models: Path,
    folder: Path,
    callbacks: list[Callback],
    ckpt_path: Path | None = None,
    num_workers: int = 0,
    **settings: Any,
) -> tuple[C2CModule, list[float]]:
    data = InstructionDataModule(
        Messages(write_rows(models / "rows.jsonl", 16)),
        validation=Messages(write_rows(models / "validation.jsonl", 12)),
        batch_size=4,
        cache_dir=str(models / "cache"),
        num_workers=num_workers,
    )
    losses = Losses()
    made = module(models, gate_noise="logistic", dropout=0.1)
    L.seed_everything(3, verbose=False)
    options: dict[str, Any] = {"val_check_interval": 2, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    run = trainer(folder, 6, [losses, *callbacks], **{**options, **settings})
    run.fit(made, datamodule=data, ckpt_path=None if ckpt_path is None else str(ckpt_path), weights_only=True)
    return made, losses.losses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["on_before_backward", "on_validation_batch_end"])
def test_a_stopped_run_resumes_exactly(number: int, hook: str, models: Path, tmp_path: Path) -> None:
    whole, losses = fit(models, tmp_path / "whole", [])
    with pytest.raises(RunStopped) as stopped:
        fit(models, tmp_path / "run", [Signal(hook, number), Checkpoint(save_last=True)])
    assert stopped.value.code == 128 + number
    path = stopped.value.checkpoint
    assert path == tmp_path / "run" / "checkpoints" / "last.ckpt"
    step = torch.load(path, weights_only=True)["global_step"]
    assert step == 3  # after the validation of step 2, one more step
    resumed, rest = fit(models, tmp_path / "run", [Checkpoint(save_last=True)], path)
    assert rest == losses[step:]
    state = resumed.state_dict()
    assert [name for name, value in whole.state_dict().items() if not torch.equal(value, state[name])] == []


# Slow: torch's handler of SIGCHLD raises wherever the process is once a worker has died, in a later test too.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "count"), [("on_before_backward", 3), ("on_validation_start", 2), ("on_validation_start", 1)]
)
def test_a_stopped_run_whose_data_loader_workers_ended_resumes_exactly(
    hook: str, count: int, models: Path, tmp_path: Path
) -> None:
    whole, losses = fit(models, tmp_path / "whole", [])
    stop = StopOnSignal()
    callbacks = [Signal(hook, signal.SIGTERM, count), Checkpoint(save_last=True), stop]
    with pytest.raises((RunStopped, RuntimeError)):
        fit(models, tmp_path / "run", callbacks, num_workers=2)
    assert stop.stopped is not None
    path = stop.stopped.checkpoint
    assert path is not None
    step = torch.load(path, weights_only=True)["global_step"]
    assert step == {"on_before_backward": 3, "on_validation_start": 2 * count}[hook]
    resumed, rest = fit(models, tmp_path / "run", [Checkpoint(save_last=True)], path, num_workers=2)
    assert rest == losses[step:]
    state = resumed.state_dict()
    assert [name for name, value in whole.state_dict().items() if not torch.equal(value, state[name])] == []


def test_after_the_patience_the_run_ends_without_a_checkpoint(models: Path, tmp_path: Path) -> None:
    class Slow(Callback):
        def on_before_optimizer_step(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    began = time.monotonic()
    with pytest.raises(RunStopped) as stopped:
        fit(models, tmp_path, [Slow(), StopOnSignal(patience=0.05)])
    assert time.monotonic() - began < 4
    assert stopped.value.checkpoint is None
    assert not (tmp_path / "checkpoints").exists()


def test_a_second_ctrl_c_ends_at_once(models: Path, tmp_path: Path) -> None:
    class Twice(Callback):
        def on_before_optimizer_step(self, *args: Any) -> None:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

    with pytest.raises(SystemExit) as stopped:
        fit(models, tmp_path, [Twice()])
    assert not isinstance(stopped.value, RunStopped)
    assert not (tmp_path / "checkpoints").exists()


def test_slurms_requeue_signal(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own handler saves and requeues, but only after the step."""
    for name, value in {"JOB_ID": "4711", "JOB_NAME": "fuser", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NODEID", "0")
    calls: list[list[str]] = []
    connector = sys.modules["lightning.pytorch.trainer.connectors.signal_connector"]
    monkeypatch.setattr(connector, "call", lambda command, **_: calls.append(command) or 0)
    with pytest.raises(RunStopped) as stopped:
        fit(models, tmp_path, [Signal("on_before_backward", signal.SIGUSR1)])
    assert stopped.value.code == 128 + signal.SIGUSR1
    assert calls == [["scontrol", "requeue", "4711"]]
    assert torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_line_prints_the_command_that_resumes(number: int, code: int, tmp_path: Path) -> None:
    """With data loader workers, which get the signal too: no traceback reaches the user."""
    config = [str(ROOT / "tests" / "conf" / "fit.yaml"), "--trainer.max_steps", "400", "--data.num_workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "c2c_lightning", "fit", "--config", *config, "--trainer.log_every_n_steps", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    resume = shlex.split(re.findall(r"^lightning fit .*$", said, re.MULTILINE)[-1])
    assert resume[-2] == "--ckpt_path"
    step = torch.load(resume[-1], weights_only=True)["global_step"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        main([*resume[1:], "--trainer.max_steps", str(step + 1)])
    record = json.loads((tmp_path / "run" / "fuser" / "fuser_config.json").read_text())["training"]
    assert record["steps"] == step + 1
