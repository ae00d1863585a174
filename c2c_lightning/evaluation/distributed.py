"""Batches of questions, and their distribution over processes."""

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
        questions: of similar length, to keep padding small.
    """

    benchmark: str
    questions: tuple[Question, ...]


class QuestionBatches(Dataset[QuestionBatch]):
    """All batches of an evaluation, in an order that depends on the questions alone."""

    def __init__(self, batches: Sequence[QuestionBatch]) -> None:
        """Wrap the batches."""
        self.batches = list(batches)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> QuestionBatch:
        """One batch."""
        return self.batches[number]


class UnpaddedDistributedSampler(DistributedSampler[int]):
    """Every n-th batch for each of n processes, without repetition.

    Lightning keeps a `DistributedSampler`; its own one would repeat questions to fill the last round.
    """

    def __init__(self, batches: QuestionBatches, rank: int, world_size: int) -> None:
        """Wrap the batches of all processes."""
        super().__init__(batches, world_size, rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        """Numbers of the batches."""
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of this process's batches."""
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


def gather(mine: Sequence[Prediction], world_size: int) -> list[Prediction]:
    """The predictions of all processes, which may write to different disks; all processes call it together.

    Args:
        mine: this process's.
        world_size: number of processes.
    """
    if world_size == 1:
        return list(mine)
    all_predictions: list[list[Prediction]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(all_predictions, list(mine))
    return [prediction for predictions in all_predictions for prediction in predictions]


def batches_of(benchmark: Task, questions: Sequence[Question], batch_size: int) -> list[QuestionBatch]:
    """Batches of questions of similar length, the longest first, so that a lack of memory shows at once.

    Args:
        benchmark: the benchmark.
        questions: its questions.
        batch_size: questions in a batch.
    """
    wording = benchmark.worded()
    lengths = {q.index: len(q.prompt(wording)[-1]["content"]) for q in questions}
    ordered = sorted(questions, key=lambda question: -lengths[question.index])
    starts = range(0, len(ordered), batch_size)
    return [QuestionBatch(benchmark.name, tuple(ordered[start : start + batch_size])) for start in starts]
