"""What an evaluation's answers depend on, and what its report says of the run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from c2c_lightning.evaluation.runner import Runner


def fingerprint(exams: Sequence[Runner], settings: dict[str, Any]) -> str:
    """A key of everything that answers and their times depend on; another key starts an evaluation anew.

    Args:
        exams: benchmarks with their questions.
        settings: the run's choices, with the fuser's content.
    """
    content = [settings, [[asdict(exam.benchmark), [asdict(q) for q in exam.questions]] for exam in exams]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def describe(settings: dict[str, Any], device: torch.device, peak_memory_bytes: int) -> dict[str, Any]:
    """The `run` section of `report.json`.

    Args:
        settings: the run's choices.
        device: where the models are.
        peak_memory_bytes: the most memory that was in use.
    """
    return {
        "package": version("c2c-lightning"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "peak_memory_bytes": peak_memory_bytes,
        **json.loads(json.dumps(settings, default=repr)),
    }


def describe_benchmark(exam: Runner) -> dict[str, Any]:
    """What `report.json` says of a benchmark beside its results."""
    benchmark = exam.benchmark
    counts = [len(question.choices) for question in exam.questions if question.choices]
    return {
        "mode": benchmark.mode,
        "scoring": benchmark.scoring if benchmark.mode == "generate" else "likelihood",
        "normalise": benchmark.normalise if benchmark.mode == "cloze" else None,
        "wording": benchmark.wording,
        "path": benchmark.path,
        "n": len(exam.questions),
        "chance": sum(1 / count for count in counts) / len(counts) if counts else None,
    }
