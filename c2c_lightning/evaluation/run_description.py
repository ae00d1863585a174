"""Fingerprint and description of a run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.evaluation.tasks import Task
from c2c_lightning.evaluation.tasks.known_tasks import BENCHMARKS, OWN_ROWS
from c2c_lightning.model.c2c import C2CModel


def fingerprint(runners: Sequence[Runner], settings: dict[str, Any]) -> str:
    """Hash of everything that answers and their times depend on; a run resumes only one with the same hash."""
    content = [settings, [[asdict(runner.benchmark), [asdict(q) for q in runner.questions]] for runner in runners]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def describe(
    settings: dict[str, Any], device: torch.device, peak_memory_bytes: int, c2c: C2CModel | None = None
) -> dict[str, Any]:
    """The `run` section of `report.json`; the fusion choices are those that the fuser was trained with."""
    fusion = () if c2c is None else ("fusion_mode", "token_alignment", "span_order", "sharer_order")
    return {
        "package": version("c2c-lightning"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "peak_memory_bytes": peak_memory_bytes,
        **{name: getattr(c2c.fuser.config, name) for name in fusion if c2c is not None},
        # `generate` may hold objects that JSON cannot express.
        **json.loads(json.dumps(settings, default=repr)),
    }


def describe_benchmark(runner: Runner) -> dict[str, Any]:
    """The fields of a benchmark in `report.json` that are no results."""
    benchmark = runner.benchmark
    # Questions may differ in their number of choices.
    counts = [len(question.choices) for question in runner.questions if question.choices]
    texts = [text for q in runner.questions if (text := q.prompt(benchmark.worded()).document)]
    return {
        "mode": benchmark.mode,
        "scoring": benchmark.scoring if benchmark.mode == "generate" else "likelihood",
        "normalise": benchmark.normalise if benchmark.mode == "cloze" else None,
        "wording": benchmark.wording,
        "protocol": protocol(benchmark),
        "path": benchmark.path,
        "n": len(runner.questions),
        "chance": sum(1 / count for count in counts) / len(counts) if counts else None,
        "document_bytes": sum(len(text.encode()) for text in texts) / len(texts) if texts else None,
    }


def protocol(benchmark: Task) -> str:
    """How questions are asked and answers scored, in words."""
    asked = f"Prompt: wording `{benchmark.wording}`."
    if benchmark.mode == "letter":
        return f"{asked} The answer is the letter with the highest log-probability (`mode: letter`)."
    if benchmark.mode == "generate":
        how = f"`mode: generate`, `scoring: {benchmark.scoring}`"
        return f"{asked} The answer is extracted from the written reply ({how})."
    unit = {"characters": " per character", "tokens": " per token"}.get(benchmark.normalise or "", "")
    text = f"{asked} The answer is the choice whose text has the highest log-probability{unit} (`mode: cloze`)."
    if benchmark.name in BENCHMARKS or (benchmark.wording, benchmark.mode) != (OWN_ROWS.wording, OWN_ROWS.mode):
        return text
    return (
        f"{text} This is the default for multiple-choice rows of one's own: it needs neither a trained answer format "
        "nor choices in the prompt, which few fusers have seen. For written answers to the paper's prompt set "
        "`mode: generate`."
    )
