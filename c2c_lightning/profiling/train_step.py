"""The training step: samples and tokens a second, needed work, share of the machine's rate, peak memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.flops import samples_of, training_step
from c2c_lightning.profiling.machine import MatrixProduct
from c2c_lightning.profiling.peak_memory import peak_bytes
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.timing import Times, median_ratio
from c2c_lightning.profiling.workload import Workload, real_tokens


class Trainer:
    """The optimizer step of `lightning fit` without Lightning's loop.

    Attributes:
        model: the fused model; its fuser learns.
    """

    def __init__(self, model: C2CModel, learning_rate: float = 1e-4, clip: float = 1.0) -> None:
        self.model, self.clip = model.train(), clip
        self.parameters = list(model.fuser.parameters())
        self.optimizer = AdamW(self.parameters, lr=learning_rate, fused=True)

    def mean_loss(self, batch: TrainingBatch) -> Tensor:
        """The mean loss of a batch's supervised tokens."""
        return self.model.response_loss(batch) / batch.response_mask.sum()

    def step(self, batch: TrainingBatch) -> None:
        """One optimizer step on a batch."""
        self.mean_loss(batch).backward()
        clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, batches: Sequence[TrainingBatch]) -> None:
        """One step on each of some batches."""
        for batch in batches:
            self.step(batch)


@dataclass(frozen=True)
class TrainStep:
    """Times the optimizer steps of a workload, each followed by matrix products.

    Attributes:
        workload: the examples, and how they are batched.
        fusion_mode: the fusion mode; the needed work is counted for `prefill` only.
        rounds: how often all of them are timed.
        product_size: rows of the square matrix product that the machine's rate is taken from.
        products: how many such products follow each step.
    """

    workload: Workload = field(default_factory=Workload)
    fusion_mode: Literal["prefill", "prompt", "decode"] = "prefill"
    rounds: int = 3
    product_size: int = 1024
    products: int = 10
    name: str = "training_step"

    def run(self, bench: BenchContext) -> Result:
        """Measure memory in the first pass over the batches, from the optimizer's making on; time in later ones."""
        model = bench.build()
        model.fuser.config = replace(model.fuser.config, fusion_mode=self.fusion_mode)
        batches = [b.to(bench.device) for b in self.workload.batches(smallest_vocabulary(model), len(model.sharers))]
        memory = peak_bytes(lambda: Trainer(model).steps(batches), bench.device)
        steps, products, flop = self._time(Trainer(model), batches, bench)
        tokens, seconds = real_tokens(batches), steps.seconds
        work = _needed_work(model, batches, steps, products, flop) if self.fusion_mode == "prefill" else {}
        return {
            "samples": self.workload.num_samples,
            "steps": len(batches),
            "tokens": tokens,
            "samples_per_second": self.workload.num_samples / seconds,
            "tokens_per_second": tokens / seconds,
            **work,
            "product_gflop_per_second": flop / products.seconds / 1e9,
            "peak_mib_above_models": memory / 2**20,
            "time": steps.to_dict(),
        }

    def _time(
        self, trainer: Trainer, batches: Sequence[TrainingBatch], bench: BenchContext
    ) -> tuple[Times, Times, int]:
        """Times of all steps and of all products of each round, and the products' operations a round, in FLOP."""
        done, dtype = bench.progress(self.rounds), next(trainer.model.receiver.model.parameters()).dtype
        product = MatrixProduct(self.product_size, dtype, bench.device)
        trainer.step(batches[0])  # makes the optimizer's state
        steps, products = Times(), Times()
        for _ in range(self.rounds):
            for batch in batches:
                steps.measure(partial(trainer.step, batch))
                products.measure(partial(product, self.products))
            done()
        return (
            steps.in_rounds(self.rounds),
            products.in_rounds(self.rounds),
            product.flop * self.products * len(batches),
        )


def _needed_work(
    model: C2CModel, batches: Sequence[TrainingBatch], steps: Times, products: Times, product_flop: int
) -> Result:
    """The needed operations of a pass over the batches, and the step's rate over that of the products."""
    needed = training_step(PairShape.of(model), [s for batch in batches for s in samples_of(batch.to("cpu"))])
    ratio = needed.total / product_flop
    return {
        "needed_gflop": needed.total / 1e9,
        "needed_gflop_by_part": {part: flop / 1e9 for part, flop in needed.parts().items()},
        "needed_gflop_per_second": needed.total / steps.seconds / 1e9,
        "share_of_product_rate": ratio * median_ratio(products.wall, steps.wall),
        "share_of_product_rate_by_cpu_time": ratio * median_ratio(products.cpu, steps.cpu),
    }
