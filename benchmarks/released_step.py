"""The training step against the released one, written out plainly on the same models, alternately.

    python -m benchmarks.released_step

The fixed work of `lightning bench --config configs/bench/step.yaml` (24 examples, six steps of four as drawn, float32,
one thread). The other side is the plain loop that the tests compare the recipe with: padded rows, one network for each
layer, and for keys and values, whole prefills, logits everywhere. It is not the released code, and does a little less:
there the sharer runs over responses too, and each layer waits for two numbers. Times are of the processor, so that
other work on the machine counts little; memory is the highest above the loaded models, each side in a process of its
own.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fixed_work import model_and_batches, peak_mib_alone, print_peak, processor_seconds
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.flops import samples_of, training_step
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.train_step import Trainer
from tests.training.released_loop import ReleasedTraining
from tests.training.released_weights import released_weights


class ReleasedTrainer(Trainer):
    """The same steps, over the plain loop's projectors."""

    def __init__(self, model: C2CModel, learning_rate: float = 1e-4, clip: float = 1.0) -> None:
        """Take a model's language models, and the weights of its fuser to begin with."""
        super().__init__(model, learning_rate, clip)
        sharers = [sharer.model for sharer in model.sharers]
        self.training = ReleasedTraining(model.receiver.model, sharers, released_weights(model.fuser))
        self.training.has_noise, self.training.temperature = True, 1.0
        self.parameters = [t for sharer in self.training.projectors for w in sharer.values() for t in w.values()]
        self.optimizer = AdamW(self.parameters, lr=learning_rate)

    def mean_loss(self, batch: TrainingBatch) -> Tensor:
        """As `Trainer.mean_loss`."""
        return self.training.loss(batch)


SIDES: dict[str, type[Trainer]] = {"ours": Trainer, "released": ReleasedTrainer}


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is timed")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--memory", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    model, batches = model_and_batches()
    if options.memory:
        print_peak(SIDES[options.memory](model), batches)
        return 0
    results = compare(model, batches, options.rounds)
    results["mib"] = {side: peak_mib_alone("benchmarks.released_step", "--memory", side) for side in SIDES}
    _show(results)
    if options.output:
        Path(options.output).write_text(json.dumps(results, indent=2), encoding="utf-8")
    return 0


def compare(model: C2CModel, batches: Sequence[TrainingBatch], rounds: int) -> dict[str, Any]:
    """Seconds of each round and operations (FLOP) of both sides, the operations that are needed, the median ratio."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in track(range(rounds), "Rounds", console=Console(stderr=True)):
        for side, make in SIDES.items():
            seconds[side].append(processor_seconds(make(model), batches))
    return {
        "ratio": statistics.median(b / a for a, b in zip(seconds["ours"], seconds["released"], strict=True)),
        "seconds": seconds,
        "flop": {side: _counted(make(model), batches) for side, make in SIDES.items()},
        "needed_flop": training_step(PairShape.of(model), [s for b in batches for s in samples_of(b)]).total,
    }


def _counted(trainer: Trainer, batches: Sequence[TrainingBatch]) -> int:
    # PyTorch counts no products inside its CPU kernel for attention; spelled out they are all pairs, masked or not.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.steps(batches)
    return int(counter.get_total_flops())


def _show(results: dict[str, Any]) -> None:
    title = f"the plain released step : ours = {results['ratio']:.2f}"
    table = Table("", "time, s", "work, GFLOP", "of the needed", "memory, MiB", title=title)
    for side in SIDES:
        seconds, flop = statistics.median(results["seconds"][side]), results["flop"][side]
        share, mib = flop / results["needed_flop"], results["mib"][side]
        table.add_row(side, f"{seconds:.1f}", f"{flop / 1e9:.0f}", f"{share:.2f}", f"{mib:.0f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
