"""The fuser kinds side by side: parameters, bytes, needed operations, time of a training step and of prefill.

    python -m benchmarks.fuser_kinds [--kinds NAME ...] [--output FILE]

Step: the fixed work of `lightning bench --config configs/bench/step.yaml` (24 examples, six steps of four as drawn).
Prefill: 256 tokens with fusion, up to the first logits. The kinds take turns, round by round; ratios are medians of
the rounds: over the first kind, and of prefill over the two models' own prefills. All on random models, float32, one
thread; times are of the processor. Sizes are those of the paper's pair (Qwen3-0.6B from Qwen2.5-0.5B).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.fixed_work import PAIR
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.flops import fuse, samples_of, training_step
from c2c_lightning.profiling.model_pair import RandomPair
from c2c_lightning.profiling.prefill_latency import first_logits, own_prefills
from c2c_lightning.profiling.shapes import FuserShape, PairShape
from c2c_lightning.profiling.timing import Times, Work, interleaved, median_ratio
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload, equal_batch

RIDGE = {"kind": "ridge", "options": {"num_sources": 1, "trainable": True}}

#: The fuser of each kind for the small pair, and for the paper's pair.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "c2c": ({"hidden_dim": 512, "intermediate_dim": 512}, {}),
    "low_rank 128": ({"kind": "low_rank", "options": {"rank": 128}},) * 2,
    "low_rank 64": ({"kind": "low_rank", "options": {"rank": 64}},) * 2,
    "rotary_free(low_rank 64)": ({"kind": "rotary_free", "options": {"kind": "low_rank", "rank": 64}},) * 2,
    "low_rank 64, hidden": ({"kind": "low_rank", "options": {"rank": 64}, "sharer_input": "hidden"},) * 2,
    "ridge": (RIDGE,) * 2,
    "ridge, replace": ({**RIDGE, "fusion_mode": "replace"},) * 2,
}

PROMPT_TOKENS = 256

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
    models = {name: build(KINDS[name][0]).build("cpu") for name in options.kinds}
    steps, (prefills, alone) = (
        _step_times(models, batches, options.rounds),
        _prefill_times(models, options.prefill_rounds),
    )
    results = []
    for name, model in models.items():
        work = training_step(PairShape.of(model), [s for batch in batches for s in samples_of(batch)])
        parameters = paper_parameters(KINDS[name][1])
        results.append(
            {
                "kind": name,
                "paper_parameters": parameters,
                "paper_mib": parameters * 4 / 2**20,
                "paper_mflop_per_token": paper_flop(KINDS[name][1]) / 1e6,
                "small_parameters": sum(p.numel() for p in model.fuser.parameters()),
                "needed_gflop": work.total / 1e9,
                "step_seconds": steps[name].cpu_seconds,
                "step_ratio": median_ratio(steps[name].cpu, steps[options.kinds[0]].cpu),
                "prefill_ratio": median_ratio(prefills[name].cpu, alone),
                "prefill_ratio_to_first": median_ratio(prefills[name].cpu, prefills[options.kinds[0]].cpu),
            }
        )
    _show(results)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _step_times(models: Mapping[str, C2CModel], batches: Sequence[TrainingBatch], rounds: int) -> dict[str, Times]:
    """Times of all steps, by kind."""
    trainers = {name: Trainer(model) for name, model in models.items()}
    works: dict[str, Work] = {name: partial(trainer.steps, batches) for name, trainer in trainers.items()}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Training steps", total=rounds)
        return interleaved(works, rounds, lambda: progress.advance(task))


@torch.no_grad()
def _prefill_times(models: Mapping[str, C2CModel], rounds: int) -> tuple[dict[str, Times], list[float]]:
    """Times of prefill with fusion, by kind; and, round by round, of both models' own prefills."""
    prompt = equal_batch(1, PROMPT_TOKENS, 1, 32_000, 1).prompt
    works: dict[str, Work] = {name: partial(first_logits, model.eval(), prompt) for name, model in models.items()}
    receiver, sharer = own_prefills(next(iter(models.values())), prompt)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Prefills", total=rounds)
        times = interleaved({**works, "own": lambda: (receiver(), sharer())}, rounds, lambda: progress.advance(task))
    return times, times.pop("own").cpu


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="NAME", help="rows")
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
        "prefill_ratio_to_first": "{:.3f}",
    }
    table = Table(*columns, box=box.MARKDOWN)
    for result in results:
        table.add_row(*(form.format(result[name]) for name, form in columns.items()))
    Console(width=220 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    sys.exit(main())
