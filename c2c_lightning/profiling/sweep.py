"""Scaling of the training step, of prefill with fusion and of the prefills alone over a range of sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from c2c_lightning.evaluation.report.plots import require_pyplot
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.flops import samples_of, training_step
from c2c_lightning.profiling.prefill_latency import first_logits, own_prefills
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.timing import Work, interleaved
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import equal_batch

Axis = Literal["batch_size", "prompt_tokens", "response_tokens"]


@dataclass(frozen=True)
class Sweep:
    """Times three operations at several sizes, fits power laws, and plots them.

    Cost is fitted as `c * size ** exponent`, by least squares on logarithms. At sizes where fixed costs matter the
    exponent is below that of the arithmetic, which is fitted too, for comparison.

    Attributes:
        over: which size grows.
        sizes: its values, ascending.
        batch_size: examples, where it does not grow.
        prompt_tokens: length of the prompts, in tokens, where it does not grow.
        response_tokens: length of the responses, in tokens, where it does not grow.
        rounds: how often each size is timed.
    """

    over: Axis = "prompt_tokens"
    sizes: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    batch_size: int = 1
    prompt_tokens: int = 128
    response_tokens: int = 32
    rounds: int = 3

    @property
    def name(self) -> str:
        """One name for each axis, so that several sweeps go into one file."""
        return f"sweep_{self.over}"

    def run(self, bench: BenchContext) -> Result:
        """Measure size by size."""
        trainer, done = Trainer(bench.build()), bench.progress(len(self.sizes))
        pair, points = PairShape.of(trainer.model), []
        for size in self.sizes:
            points.append(self._point(trainer, pair, size, bench.device))
            done()
        names = [name for name in points[0] if name != "size"]
        fits = {name: growth(self.sizes, [point[name] for point in points]) for name in names}
        picture = bench.output_dir / f"{self.name}.png"
        draw(self.over, points, fits, picture)
        return {"points": points, "growth": fits, "picture": str(picture)}

    def _point(self, trainer: Trainer, pair: PairShape, size: int, device: torch.device) -> Result:
        """CPU seconds on a CPU, else wall seconds, of each work at one size, and the step's needed GFLOP."""
        changed: dict[str, Any] = {self.over: size}
        model, at = trainer.model, replace(self, **changed)
        shape = at.batch_size, at.prompt_tokens, at.response_tokens
        batch = equal_batch(*shape, smallest_vocabulary(model), len(model.sharers))
        needed = training_step(pair, samples_of(batch)).total
        batch = batch.to(device)
        works = {
            "training_step": lambda: trainer.step(batch),
            "prefill_with_fusion": _without_training(model, lambda: first_logits(model, batch.prompt)),
            "prefills_alone": _without_training(model, lambda: [work() for work in own_prefills(model, batch.prompt)]),
        }
        times = interleaved(works, self.rounds)
        seconds = {name: timed.cpu_seconds if device.type == "cpu" else timed.seconds for name, timed in times.items()}
        return {"size": size, **seconds, "needed_gflop_of_step": needed / 1e9}


def _without_training(model: C2CModel, work: Work) -> Work:
    """A work in evaluation mode and without gradients."""

    def evaluated() -> None:
        model.eval()
        with torch.no_grad():
            work()
        model.train()

    return evaluated


def growth(sizes: Sequence[int], costs: Sequence[float]) -> dict[str, float]:
    """The power law fitted to costs, both positive.

    Returns:
        `exponent`, `factor` (cost at size 1) and `r2`, the share of the logarithms' variance that it explains.
    """
    x, y = np.log(sizes), np.log(costs)
    exponent, intercept = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    rest = ((y - (intercept + exponent * x)) ** 2).sum()
    r2 = 1 - rest / spread if spread else 1.0
    return {"exponent": float(exponent), "factor": float(np.exp(intercept)), "r2": float(r2)}


def draw(over: str, points: Sequence[Mapping[str, Any]], fits: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Seconds over size on logarithmic axes, with the fitted lines."""
    plt = require_pyplot()
    figure, axes = plt.subplots(figsize=(5.5, 4))
    sizes = [point["size"] for point in points]
    for name, fit in fits.items():
        if name.startswith("needed"):
            continue
        (line,) = axes.plot(sizes, [point[name] for point in points], "o")
        fitted = [fit["factor"] * size ** fit["exponent"] for size in sizes]
        label = f"{name.replace('_', ' ')}: size^{fit['exponent']:.2f}"
        axes.plot(sizes, fitted, color=line.get_color(), label=label)
    axes.set(xscale="log", yscale="log", xlabel=over.replace("_", " "), ylabel="seconds")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
