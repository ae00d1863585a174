"""`lightning fit` as torchrun and Slurm start it: two machines of one process, and one of two; on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
FIT = ["fit", "--config", str(ROOT / "tests" / "conf" / "fit.yaml")]
MODULE = ["-m", "c2c_lightning"]


def overlay(name: str, devices: int, num_nodes: int, *more: str) -> list[str]:
    """Arguments of a run with a shipped overlay, on CPUs."""
    options = {"accelerator": "cpu", "devices": str(devices), "num_nodes": str(num_nodes)}
    changed = [part for key, value in options.items() for part in (f"--trainer.{key}", value)]
    return [*FIT, "--config", str(ROOT / "configs" / "trainer" / f"{name}.yaml"), *changed, *more]


def torchrun(port: int, rank: int) -> tuple[list[str], dict[str, str]]:
    """One of two machines with a process each, with fuser and language models sharded."""
    sharded = ("--model.shard_models", "true", "--model.fuser.span_order", "one_pass")
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank), "--master-addr", "127.0.0.1"]
    start = ["-m", "torch.distributed.run", *where, "--master-port", str(port)]
    return [*start, *MODULE, *overlay("fsdp2", 1, 2, *sharded)], {}


def slurm(port: int, rank: int) -> tuple[list[str], dict[str, str]]:
    """One of two tasks on one machine, by the variables that srun sets."""
    variables = {"NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "NODEID": 0, "PROCID": rank, "LOCALID": rank}
    environment = {f"SLURM_{name}": str(value) for name, value in variables.items()}
    named = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "fuser", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)}
    return [*MODULE, *overlay("ddp", 2, 1)], environment | named


@pytest.mark.parametrize("launcher", [torchrun, slurm])
def test_a_run_in_two_processes(launcher: object, tmp_path: Path) -> None:
    assert callable(launcher)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(2):
        arguments, variables = launcher(port, rank)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
        log = (tmp_path / f"{rank}.log").open("w")
        command = [sys.executable, *arguments]
        running.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log))
    codes = [process.wait(timeout=550) for process in running]
    assert codes == [0, 0], "\n".join((tmp_path / f"{rank}.log").read_text()[-2000:] for rank in range(2))
    written = json.loads((tmp_path / "run" / "fuser" / "fuser_config.json").read_text())
    assert written["training"]["steps"] == 3
    assert written["training"]["settings"]["processes"] == 2
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
