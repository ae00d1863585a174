"""The data of `lightning test`: questions of benchmarks in batches."""

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.distributed import QuestionBatch, UnpaddedDistributedSampler, batches_of
from c2c_lightning.evaluation.scoring.maths import require_math_verify
from c2c_lightning.evaluation.tasks import Question, Task, load_questions, resolve


class BenchmarkDataModule(LightningDataModule):
    """Questions of benchmarks, in batches of one benchmark and similar length.

    Args:
        benchmarks: names of the registry with their deviations, or other benchmarks.
        batch_size: questions that are answered together.
        data_folder: base of relative paths of local files; default the working directory.

    Attributes:
        benchmarks: after `setup`, the resolved benchmarks with their questions.
    """

    def __init__(self, benchmarks: list[Task], batch_size: int = 16, data_folder: str | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise BenchmarkError(f"batch_size is {batch_size}, but must be at least 1.")
        self.given, self.batch_size, self.data_folder = benchmarks, batch_size, data_folder
        self.benchmarks: list[tuple[Task, list[Question]]] = []

    def setup(self, stage: str | None = None) -> None:
        """Load all questions; BenchmarkError for an unknown, repeated, malformed or empty benchmark."""
        if self.benchmarks:
            return
        resolved = [resolve(benchmark) for benchmark in self.given]
        names = [benchmark.name for benchmark in resolved]
        if not names or len(set(names)) < len(names):
            raise BenchmarkError(f"`data.benchmarks` needs at least one benchmark, each with its own name: {names}.")
        # Before the models are loaded: a missing library must not fail at the first answer.
        if any(benchmark.scoring == "maths" for benchmark in resolved):
            require_math_verify()
        self.benchmarks = [(benchmark, load_questions(benchmark, self.data_folder)) for benchmark in resolved]

    def test_dataloader(self) -> DataLoader[QuestionBatch]:
        """This process's batches."""
        batches = [
            b for benchmark, questions in self.benchmarks for b in batches_of(benchmark, questions, self.batch_size)
        ]
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        sampler = UnpaddedDistributedSampler(batches, rank, world)
        # `batch_size=None`: the items are batches already, each of one benchmark.
        return DataLoader(batches, batch_size=None, sampler=sampler)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: QuestionBatch, device: torch.device, dataloader_idx: int
    ) -> QuestionBatch:
        """Return the batch unchanged: Lightning would copy its dataclasses field by field, but they are frozen."""
        return batch
