"""The paper's sizes without a GPU: a few training steps on the CPU, and the predicted time of a GPU.

    python -m benchmarks.paper_size

is `lightning bench --config configs/bench/paper_size.yaml`, with this folder's modules importable.
"""

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.memory_traffic import Accelerator, Efficiency, predicted_seconds, step_bytes
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.ops import residual_mlp
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.flops import Sample, samples_of, training_step
from c2c_lightning.profiling.peak_memory import peak_bytes
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.timing import Times
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import equal_batch


class CountKernels(TorchDispatchMode):
    """Counts PyTorch's operations except views.

    Attributes:
        kernels: how many there were; on a GPU each is at least one launch.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        self.kernels += not func.is_view
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class PaperSize:
    """Times a few training steps and predicts a GPU's time for the same work.

    Predicted seconds are those of a roofline model: each part of the step takes as long as its matrix products or its
    memory traffic, at the assumed share of the data sheet's rates; a step takes no less than all launches.

    Attributes:
        batch_size: examples a step.
        prompt_tokens: length of the prompts, in tokens.
        response_tokens: length of the responses, in tokens.
        steps: how many steps; the first, which makes the optimizer's state, is timed too.
        accelerator: the GPU of the prediction.
        efficiency: the shares of its rates that are assumed.
    """

    batch_size: int = 1
    prompt_tokens: int = 384
    response_tokens: int = 128
    steps: int = 3
    accelerator: Accelerator = field(default_factory=Accelerator)
    efficiency: Efficiency = field(default_factory=Efficiency)
    name: str = "paper_size"

    def run(self, bench: BenchContext) -> Result:
        """Train, then predict."""
        model, done = bench.build(), bench.progress(self.steps)
        shape = self.batch_size, self.prompt_tokens, self.response_tokens
        batch = equal_batch(*shape, smallest_vocabulary(model), len(model.sharers))
        samples, times, counter = samples_of(batch), Times(), CountKernels()
        batch = batch.to(bench.device)

        def train() -> None:
            trainer = Trainer(model)
            for step in range(self.steps):
                # Counting takes time of its own, so it is done in one step only, the last.
                with ExitStack() as stack:
                    if step == self.steps - 1:
                        stack.enter_context(counter)
                        # As on a GPU, which computes all layers at once.
                        stack.enter_context(patch.object(residual_mlp, "CPU_NUMBERS", sys.maxsize))
                    times.measure(lambda: trainer.step(batch))
                done()

        memory = peak_bytes(train, bench.device)
        work = training_step(PairShape.of(model), samples)
        return {
            "tokens_per_example": self.prompt_tokens + self.response_tokens,
            "batch_size": self.batch_size,
            "models_mib": _mib(lm.model for lm in (model.receiver, *model.sharers)),
            "fuser_mib": _mib([model.fuser]),
            "peak_mib_above_models": memory / 2**20,
            "step": times.to_dict(),
            "kernels_per_step": counter.kernels,
            "needed_tflop": work.total / 1e12,
            "needed_tflop_by_part": {part: flop / 1e12 for part, flop in work.parts().items()},
            "predicted": self._predict(model, samples, counter.kernels),
        }

    def _predict(self, model: C2CModel, samples: list[Sample], kernels: int) -> Result:
        """The GPU's time; every figure here is predicted, none was measured."""
        pair, width = PairShape.of(model), next(model.receiver.model.parameters()).element_size()
        moved = step_bytes(pair, samples, width)
        seconds = predicted_seconds(training_step(pair, samples), moved, self.accelerator, self.efficiency)
        launches = kernels * self.accelerator.launch
        step = max(sum(seconds.values()), launches)
        return {
            "is_predicted": True,
            "assumed": {**asdict(self.accelerator), "efficiency": asdict(self.efficiency)},
            "gigabytes_moved": sum(moved.values()) / 1e9,
            "seconds_by_part": seconds,
            "seconds_of_launches": launches,
            "seconds_per_step": step,
            "samples_per_second": self.batch_size / step,
        }


def _mib(modules: Iterable[nn.Module]) -> float:
    """Size of some modules' weights."""
    return sum(weight.nbytes for module in modules for weight in module.parameters()) / 2**20


if __name__ == "__main__":
    from c2c_lightning.cli import main  # needs jsonargparse, which importing this module does not

    config = Path(__file__).parents[1] / "configs" / "bench" / "paper_size.yaml"
    main(["bench", "--config", str(config), *sys.argv[1:]])
