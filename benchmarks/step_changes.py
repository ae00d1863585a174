"""What each saving in the training step is worth: the step with it and without it, alternately.

    python -m benchmarks.step_changes

The fixed work of `lightning bench --config configs/bench/step.yaml` (24 examples, six steps of four as drawn, float32,
one thread). Each saving is taken back alone, at the place where it lives. Times are of the processor, so that other
work on the machine counts little; memory is the highest above the loaded models, each way in a process of its own.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.optim import AdamW

from benchmarks.fixed_work import model_and_batches, peak_mib_alone, print_peak, processor_seconds
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.ops.residual_mlp import ResidualMLP
from c2c_lightning.profiling.train_step import Trainer


def _all_logits(self: C2CModel, batch: TrainingBatch) -> torch.Tensor:
    logits = self(batch.prompt, batch.response_ids, batch.response_mask).logits[:, :-1]
    wanted = batch.response_ids.masked_fill(~batch.response_mask, -100)
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")


@contextmanager
def _without_early_end() -> Iterator[None]:
    with patch.object(Prefill, "_ends_at", lambda self, layer: False):
        yield


#: Each saving, and the step without it.
SAVINGS: dict[str, Callable[[], Any]] = {
    "rows run as one, without padding": lambda: patch.object(FrozenLM, "supports_ragged", False),
    "prefills end at the last keys and values": _without_early_end,
    "output head for supervised tokens, in chunks": lambda: patch.object(C2CModel, "response_loss", _all_logits),
    "norm and GELU recomputed in the backward pass": lambda: patch.object(
        ResidualMLP, "_low_memory_update", ResidualMLP.plain_update
    ),
    "AdamW in one pass": lambda: patch("c2c_lightning.profiling.train_step.AdamW", _plain_adamw),
}


def _plain_adamw(parameters: Any, lr: float, fused: bool) -> AdamW:
    return AdamW(parameters, lr=lr)


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    options = _options(args)
    torch.set_num_threads(1)
    model, batches = model_and_batches()
    if options.memory is not None:
        with SAVINGS[options.memory]() if options.memory else nullcontext():
            print_peak(Trainer(model), batches)
        return 0
    with_all = _memory("")
    results = []
    for name in track(SAVINGS, "Savings", console=Console(stderr=True)):
        ratio, seconds = _times(model, batches, SAVINGS[name], options.rounds)
        results.append({"saving": name, "seconds_without": seconds, "ratio": ratio, "mib_without": _memory(name)})
    _show(results, with_all)
    if options.output:
        Path(options.output).write_text(json.dumps({"mib": with_all, "savings": results}, indent=2), encoding="utf-8")
    return 0


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args(args)


def _times(
    model: C2CModel, batches: Sequence[TrainingBatch], without: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """How many times as long all steps take without a saving, and how many seconds; medians."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for is_saved in (True, False):
            with nullcontext() if is_saved else without():
                seconds[is_saved].append(processor_seconds(Trainer(model), batches))
    ratios = [without / with_it for with_it, without in zip(seconds[True], seconds[False], strict=True)]
    return statistics.median(ratios), statistics.median(seconds[False])


def _memory(name: str) -> float:
    """MiB above the loaded models without a saving, or with all of them."""
    return peak_mib_alone("benchmarks.step_changes", "--memory", name)


def _show(results: Sequence[dict[str, Any]], with_all: float) -> None:
    table = Table("without", "time, x", "memory, MiB", title=f"with all savings: {with_all:.0f} MiB")
    for result in results:
        table.add_row(result["saving"], f"{result['ratio']:.2f}", f"{result['mib_without']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
