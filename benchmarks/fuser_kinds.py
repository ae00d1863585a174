"""The fuser kinds side by side: parameters, bytes, needed operations, time of a training step and of prefill.

    python -m benchmarks.fuser_kinds [--output FILE]

Step: the fixed work of `lightning bench --config configs/bench/step.yaml` (24 examples, six steps of four as drawn),
with each kind in turn, round by round. Prefill: 256 tokens with fusion, over the two models' own prefills. Both on
random models, float32, one thread; times are of the processor. Sizes are those of the paper's pair (Qwen3-0.6B from
Qwen2.5-0.5B).
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.fixed_work import PAIR, processor_seconds
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.profiling.benchmark import BenchContext
from c2c_lightning.profiling.flops import fuse, samples_of, training_step
from c2c_lightning.profiling.model_pair import RandomPair
from c2c_lightning.profiling.prefill_latency import PrefillLatency
from c2c_lightning.profiling.shapes import FuserShape, PairShape
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload

#: The fuser of each kind for the small pair, and for the paper's pair.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "c2c": ({"hidden_dim": 512, "intermediate_dim": 512}, {}),
    "low_rank 128": ({"kind": "low_rank", "options": {"rank": 128}},) * 2,
    "low_rank 64": ({"kind": "low_rank", "options": {"rank": 64}},) * 2,
    "rotary_free(low_rank 64)": ({"kind": "rotary_free", "options": {"kind": "low_rank", "rank": 64}},) * 2,
    "low_rank 64, hidden": ({"kind": "low_rank", "options": {"rank": 64}, "sharer_input": "hidden"},) * 2,
}

PAPER = (
    KVGeometry((LayerGeometry(8, 128, 128),) * 28, hidden_size=1024),
    KVGeometry((LayerGeometry(2, 64, 64),) * 24, hidden_size=896),
)
"""Cache shapes of Qwen3-0.6B (receiver) and Qwen2.5-0.5B (sharer)."""


def paper_parameters(choices: dict[str, Any]) -> int:
    """Parameters of a fuser for the paper's pair."""
    receiver, sharer = PAPER
    with torch.device("meta"):
        fuser = Fuser(receiver, [sharer], FuserConfig(**choices))
    return sum(parameter.numel() for parameter in fuser.parameters())


def paper_flop(choices: dict[str, Any]) -> int:
    """FLOP of fusing one token of the paper's pair, all layers."""
    receiver, sharer = PAPER
    (shape,) = FuserShape.of(receiver, [sharer], FuserConfig(**choices))
    return fuse(shape, 1)


def build(choices: dict[str, Any]) -> RandomPair:
    """The small pair with a fuser of a kind."""
    sizes = yaml.safe_load(PAIR.read_text(encoding="utf-8"))["init_args"]
    return RandomPair(sizes["receiver"], sizes["sharers"], FuserConfig(dropout=0.0, **choices))


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    options = _options(args)
    torch.set_num_threads(1)
    batches = list(Workload(batching="as_drawn").batches(32_000, 1))
    pairs = {name: build(small) for name, (small, _) in KINDS.items()}
    seconds, results = _step_seconds(pairs, batches, options.rounds), []
    for name, pair in pairs.items():
        model = pair.build("cpu")
        work = training_step(PairShape.of(model), [s for batch in batches for s in samples_of(batch)])
        prefill = PrefillLatency(rounds=options.prefill_rounds).run(BenchContext(pair, torch.device("cpu"), Path()))
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds["c2c"], strict=True)]
        parameters = paper_parameters(KINDS[name][1])
        results.append(
            {
                "kind": name,
                "paper_parameters": parameters,
                "paper_mib": parameters * 4 / 2**20,
                "paper_mflop_per_token": paper_flop(KINDS[name][1]) / 1e6,
                "small_parameters": sum(p.numel() for p in model.fuser.parameters()),
                "needed_gflop": work.total / 1e9,
                "step_seconds": statistics.median(seconds[name]),
                "step_ratio": statistics.median(ratios),
                "prefill_ratio": prefill["ratio_by_cpu_time"],
            }
        )
    _show(results)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _step_seconds(
    pairs: dict[str, RandomPair], batches: Sequence[TrainingBatch], rounds: int
) -> dict[str, list[float]]:
    """Seconds of all steps by kind and round; the kinds take turns, so that slow phases of the machine meet all."""
    trainers = {name: Trainer(pair.build("cpu")) for name, pair in pairs.items()}
    for trainer in trainers.values():  # the optimizer's state
        trainer.step(batches[0])
    times: dict[str, list[float]] = {name: [] for name in trainers}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Training steps", total=rounds * len(trainers))
        for _ in range(rounds):
            for name, trainer in trainers.items():
                times[name].append(processor_seconds(trainer, batches))
                progress.advance(task)
    return times


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes over the fixed work")
    parser.add_argument("--prefill_rounds", type=int, default=15, help="timed prefills")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args(args)


def _show(results: list[dict[str, Any]]) -> None:
    columns = {
        "kind": "{}",
        "paper_parameters": "{:,}",
        "paper_mib": "{:.1f}",
        "paper_mflop_per_token": "{:.1f}",
        "small_parameters": "{:,}",
        "needed_gflop": "{:.0f}",
        "step_seconds": "{:.2f}",
        "step_ratio": "{:.3f}",
        "prefill_ratio": "{:.3f}",
    }
    table = Table(*columns)
    for result in results:
        table.add_row(*(form.format(result[name]) for name, form in columns.items()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
