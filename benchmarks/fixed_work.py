"""The fixed work of `configs/bench/step.yaml`, for benchmarks that do it in more than one way."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.model_pair import RandomPair
from c2c_lightning.profiling.peak_memory import peak_bytes
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload

PAIR = Path(__file__).parents[1] / "configs" / "bench" / "pair" / "small.yaml"


def small_pair() -> RandomPair:
    """The pair of the fixed work."""
    sizes = yaml.safe_load(PAIR.read_text(encoding="utf-8"))["init_args"]
    return RandomPair(sizes["receiver"], sizes["sharers"], FuserConfig(**sizes["fuser"]))


def model_and_batches() -> tuple[C2CModel, list[TrainingBatch]]:
    """A fresh pair, and six batches of four examples as drawn."""
    return small_pair().build("cpu"), list(Workload(batching="as_drawn").batches(32_000, 1))


def processor_seconds(trainer: Trainer, batches: Sequence[TrainingBatch]) -> float:
    """This process's time for all steps: other work on the machine counts little."""
    begin = time.process_time()
    trainer.steps(batches)
    return time.process_time() - begin


def print_peak(trainer: Trainer, batches: Sequence[TrainingBatch]) -> None:
    """Print the most memory that all steps take above what is loaded, in bytes."""
    print(peak_bytes(lambda: trainer.steps(batches), torch.device("cpu")))


def peak_mib_alone(benchmark: str, *arguments: str) -> float:
    """What `print_peak` prints in a process of its own, in MiB.

    Args:
        benchmark: module to run.
        arguments: its command line.
    """
    command = [sys.executable, "-m", benchmark, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 2**20
