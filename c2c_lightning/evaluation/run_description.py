"""Fingerprint and description of a run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from c2c_lightning.evaluation.runner import Runner


def fingerprint(runners: Sequence[Runner], settings: dict[str, Any]) -> str:
    """Hash of everything that answers and their times depend on; a run resumes only one with the same hash."""
    content = [settings, [[asdict(runner.benchmark), [asdict(q) for q in runner.questions]] for runner in runners]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def describe(settings: dict[str, Any], device: torch.device, peak_memory_bytes: int) -> dict[str, Any]:
    """The `run` section of `report.json`."""
    return {
        "package": version("c2c-lightning"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "peak_memory_bytes": peak_memory_bytes,
        # `generate` may hold objects that JSON cannot express.
        **json.loads(json.dumps(settings, default=repr)),
    }


def describe_benchmark(runner: Runner) -> dict[str, Any]:
    """The fields of a benchmark in `report.json` that are no results."""
    benchmark = runner.benchmark
    # Questions may differ in their number of choices.
    counts = [len(question.choices) for question in runner.questions if question.choices]
    return {
        "mode": benchmark.mode,
        "scoring": benchmark.scoring if benchmark.mode == "generate" else "likelihood",
        "normalise": benchmark.normalise if benchmark.mode == "cloze" else None,
        "wording": benchmark.wording,
        "path": benchmark.path,
        "n": len(runner.questions),
        "chance": sum(1 / count for count in counts) / len(counts) if counts else None,
    }
