"""Batches of questions, and each process's share of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.tasks import Question, Task


@dataclass(frozen=True)
class QuestionBatch:
    """Questions of one benchmark that are answered together.

    Attributes:
        benchmark: its name.
        questions: of like length, so that little padding is needed.
    """

    benchmark: str
    questions: tuple[Question, ...]


class Batches(Dataset[QuestionBatch]):
    """All batches of an evaluation, in an order that depends on the questions alone."""

    def __init__(self, batches: Sequence[QuestionBatch]) -> None:
        """Take the batches."""
        self.batches = list(batches)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> QuestionBatch:
        """One batch."""
        return self.batches[number]


class UnpaddedDistributedSampler(DistributedSampler[int]):
    """Every n-th batch for each of n processes, none twice and none left out.

    Lightning leaves a sampler of this kind alone; the one it would put in pads the last round with questions that were
    asked already.
    """

    def __init__(self, batches: Batches, rank: int, world_size: int) -> None:
        """Take the batches and this process's number."""
        super().__init__(batches, world_size, rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        """Numbers of the batches."""
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        """How many batches this process has."""
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


def gather(mine: Sequence[Prediction], world_size: int) -> list[Prediction]:
    """The predictions of all processes, which may write to different disks; waits until all of them have answered.

    Args:
        mine: this process's.
        world_size: number of processes.
    """
    if world_size == 1:
        return list(mine)
    everybodys: list[list[Prediction]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(everybodys, list(mine))
    return [prediction for predictions in everybodys for prediction in predictions]


def batches_of(benchmark: Task, questions: Sequence[Question], batch_size: int) -> list[QuestionBatch]:
    """Batches of questions of like length, the longest first: what does not fit in memory shows at once.

    Args:
        benchmark: the benchmark.
        questions: its questions.
        batch_size: questions in a batch.
    """
    wording = benchmark.worded()
    lengths = {q.index: len(q.conversation(wording)[-1]["content"]) for q in questions}
    ordered = sorted(questions, key=lambda question: -lengths[question.index])
    starts = range(0, len(ordered), batch_size)
    return [QuestionBatch(benchmark.name, tuple(ordered[start : start + batch_size])) for start in starts]
