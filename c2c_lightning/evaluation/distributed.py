"""Batches of questions, and their distribution over processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch.utils.data.distributed import DistributedSampler

from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.tasks import Question, Task


@dataclass(frozen=True)
class QuestionBatch:
    """Questions of one benchmark (its name), which are answered together."""

    benchmark: str
    questions: tuple[Question, ...]


class UnpaddedDistributedSampler(DistributedSampler[int]):
    """Every n-th batch for each of n processes, without repetition.

    Lightning keeps a `DistributedSampler`; its own one would repeat questions to fill the last round.
    """

    def __init__(self, batches: Sequence[QuestionBatch], rank: int, world_size: int) -> None:
        super().__init__(batches, world_size, rank, shuffle=False)  # type: ignore[arg-type]
        # Every n-th, not blocks: batches are sorted by length, so all processes have about the same work.
        self.numbers = range(rank, len(batches), world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def gather(mine: Sequence[Prediction], world_size: int) -> list[Prediction]:
    """The predictions of all processes, which may write to different disks; all processes call it together."""
    if world_size == 1:
        return list(mine)
    all_predictions: list[list[Prediction]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(all_predictions, list(mine))
    return list(chain.from_iterable(all_predictions))


def batches_of(benchmark: Task, questions: Sequence[Question], batch_size: int) -> list[QuestionBatch]:
    """Batches of questions of similar length, the longest first, so that a lack of memory shows at once."""
    wording = benchmark.worded()
    ordered = sorted(questions, key=lambda question: -len(question.prompt(wording)[-1]["content"]))
    starts = range(0, len(ordered), batch_size)
    return [QuestionBatch(benchmark.name, tuple(ordered[start : start + batch_size])) for start in starts]
