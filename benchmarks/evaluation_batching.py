"""How much faster an evaluation is in batches than question by question, with the same answers.

    python -m benchmarks.evaluation_batching --fuser runs/quickstart/fuser

Receiver, sharer, text-to-text and C2C of the embedded pair answer the same held-out questions in float32 on one thread,
in batches and one at a time, alternately. Times are of the processor, so that other work on the machine counts little;
questions per second are of the wall clock. Exit code 1 if an answer differs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from c2c_lightning.evaluation.distributed import batches_of
from c2c_lightning.evaluation.load_models import load_bundles
from c2c_lightning.evaluation.plan import EvaluationPlan, Participant, build_participants
from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.responders.registry import T2T

RESPONDERS = ["receiver", "sharer", T2T("In one sentence: {question}", 32), "c2c"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    options = _options(args)
    torch.set_num_threads(1)
    benchmark = resolve(Task("quickstart", limit=options.questions))
    runner = Runner(benchmark, load_questions(benchmark), {"max_new_tokens": 8, "do_sample": False})
    bundles = load_bundles([options.fuser], dtype="float32")
    results = []
    for participant in build_participants(EvaluationPlan(RESPONDERS), bundles, benchmark, runner.questions):
        results.append(_measure(runner, participant, options.batch_size, options.repeats))
    _show(results, options.batch_size)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
    return int(any(result["different"] for result in results))


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuser", default="runs/quickstart/fuser", help="fuser directory of the embedded pair")
    parser.add_argument("--questions", type=int, default=128, help="how many questions")
    parser.add_argument("--batch_size", type=int, default=64, help="questions in a batch")
    parser.add_argument("--repeats", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--output", help="file for the results as JSON")
    return parser.parse_args(args)


def _measure(runner: Runner, participant: Participant, batch_size: int, repeats: int) -> dict[str, Any]:
    """One responder, both ways alternately; the first round warms up."""
    seconds: dict[int, list[float]] = {1: [], batch_size: []}
    wall: dict[int, list[float]] = {1: [], batch_size: []}
    outputs: dict[int, dict[int, str]] = {}
    for _ in range(repeats + 1):
        for size in seconds:
            begin, began = time.process_time(), time.perf_counter()
            batches = batches_of(runner.benchmark, runner.questions, size)
            answered = [p for batch in batches for p in runner.run(participant, batch.questions)]
            seconds[size].append(time.process_time() - begin)
            wall[size].append(time.perf_counter() - began)
            outputs[size] = {p.index: p.error or p.output for p in answered}
    alone, together = (statistics.median(seconds[size][1:]) for size in (1, batch_size))
    ratios = [a / b for a, b in zip(seconds[1][1:], seconds[batch_size][1:], strict=True)]
    return {
        "responder": participant.name,
        "seconds_alone": alone,
        "seconds_batched": together,
        "ratio": alone / together,
        "ratios": ratios,
        "questions_per_second": len(runner.questions) / statistics.median(wall[batch_size][1:]),
        "different": sum(outputs[1][index] != output for index, output in outputs[batch_size].items()),
    }


def _show(results: Sequence[dict[str, Any]], batch_size: int) -> None:
    table = Table("responder", "CPU s, batch 1", f"CPU s, batch {batch_size}", "ratio", "answers that differ")
    for result in results:
        times = (f"{result[name]:.2f}" for name in ("seconds_alone", "seconds_batched"))
        table.add_row(result["responder"], *times, f"{result['ratio']:.1f}", str(result["different"]))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
