from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochProgress
from c2c_lightning.data.loading.mixture_sampling import MixedRows
from c2c_lightning.data.loading.step_plan import StepSize
from c2c_lightning.data.row_lengths import BatchLimits
from c2c_lightning.errors import DataError
from tests.data.loading.test_length_buckets import long_tailed

LENGTHS = long_tailed(500)
LIMITS = [BatchLimits(4), BatchLimits(None, 3000), BatchLimits(8, 3000)]


def ranks(
    world_size: int, limits: BatchLimits, progress: EpochProgress | None = None, **kwargs: object
) -> list[list[list[int]]]:
    """The batches of each process."""
    result = []
    for rank in range(world_size):
        sampler = BatchSampler(LENGTHS, limits, rank=rank, world_size=world_size, **kwargs)  # type: ignore[arg-type]
        sampler.start_at(progress or EpochProgress())
        result.append(list(sampler))
    return result


def steps(batch_size: int, world_size: int = 1, accumulate: int = 1, max_tokens: int | None = None) -> list[list[int]]:
    """The rows of each optimizer step of an epoch, over all processes."""
    processes = ranks(world_size, BatchLimits(batch_size, max_tokens), accumulate=accumulate)
    return [
        sorted(row for batches in processes for batch in batches[start : start + accumulate] for row in batch)
        for start in range(0, len(processes[0]), accumulate)
    ]


@pytest.mark.parametrize(
    ("world_size", "batch_size", "accumulate"), [(1, 4, 2), (2, 4, 1), (2, 2, 2), (4, 2, 1), (4, 1, 2)]
)
def test_the_rows_of_a_step_depend_on_the_global_batch_alone(world_size: int, batch_size: int, accumulate: int) -> None:
    assert steps(batch_size, world_size, accumulate) == steps(8)


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 4), (2, 2), (4, 1)])
def test_under_a_token_budget_they_depend_on_the_batches_of_a_step(world_size: int, accumulate: int) -> None:
    assert steps(8, world_size, accumulate, 3000) == steps(8, 4, 1, 3000)
    assert all(len(rows) >= 4 for rows in steps(8, world_size, accumulate, 3000))


def rows_of(processes: list[list[list[int]]]) -> list[int]:
    """All supervised rows."""
    return sorted(row for batches in processes for batch in batches for row in batch if row >= 0)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_row_once_and_the_same_number_of_batches(limits: BatchLimits, world_size: int, epoch: int) -> None:
    processes = ranks(world_size, limits, EpochProgress(epoch))
    assert rows_of(processes) == list(range(500))
    expected = len(BatchSampler(LENGTHS, limits, world_size=world_size))
    assert {len(batches) for batches in processes} == {expected}


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert ranks(2, LIMITS[1]) == ranks(2, LIMITS[1])
    assert ranks(2, LIMITS[1]) != ranks(2, LIMITS[1], EpochProgress(1))
    assert ranks(2, LIMITS[1]) != ranks(2, LIMITS[1], seed=1)


def test_epochs_have_other_batches() -> None:
    first, second = (
        {pair for batch in ranks(1, LIMITS[0], EpochProgress(epoch))[0] for pair in combinations(sorted(batch), 2)}
        for epoch in (0, 1)
    )
    assert len(first & second) < 0.7 * len(first)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("done", [1, 17, 25])
def test_resuming_in_the_middle_of_an_epoch(limits: BatchLimits, done: int) -> None:
    size = StepSize.of(limits, 2)
    whole = ranks(2, limits, EpochProgress(3))
    rest = ranks(2, limits, EpochProgress(3).after(size, done))
    assert [batches[done:] for batches in whole] == rest


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 1), (1, 4)])
def test_another_number_of_processes_with_equal_steps_continues_exactly(before: int, after: int) -> None:
    size = StepSize(8)
    whole = ranks(before, BatchLimits(8 // before), EpochProgress(2))
    rest = ranks(after, BatchLimits(8 // after), EpochProgress(2).after(size, 9))
    expected = [rows_of([[batches[step]] for batches in whole]) for step in range(9, len(whole[0]))]
    assert [rows_of([[batches[step]] for batches in rest]) for step in range(len(rest[0]))] == expected


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("limits", LIMITS)
def test_steps_of_another_size_read_the_rest_once(before: int, after: int, limits: BatchLimits) -> None:
    head = rows_of([batches[:9] for batches in ranks(before, limits, EpochProgress(2))])
    progress = EpochProgress(2).after(StepSize.of(limits, before), 9)
    rest = ranks(after, limits, progress)
    assert len({len(batches) for batches in rest}) == 1
    assert sorted(head + rows_of(rest)) == list(range(500))
    # And once more, by the first number again.
    head += rows_of([batches[:4] for batches in rest])
    last = ranks(before, limits, progress.after(StepSize.of(limits, after), 4))
    assert sorted(head + rows_of(last)) == list(range(500))


def test_batches_of_one_step_are_alike() -> None:
    sampler = BatchSampler(LENGTHS, LIMITS[1], world_size=2)
    batches = [batch for step in sampler.remaining(EpochProgress()) for batch in step]
    tokens = np.array([LENGTHS.take(batch).real_tokens / len(batch) for batch in batches])
    pairs = tokens.reshape(-1, 2)
    apart = np.abs(np.log(pairs[:, 0] / pairs[:, 1])).mean()
    anyhow = np.abs(np.log(np.random.default_rng(0).permutation(tokens).reshape(-1, 2))).T
    assert apart < np.abs(anyhow[0] - anyhow[1]).mean() / 2


def test_more_processes_than_rows_get_rows_without_supervision() -> None:
    few = LENGTHS.take(np.arange(3))
    samplers = [BatchSampler(few, BatchLimits(4), rank=rank, world_size=5) for rank in range(5)]
    batches = [list(sampler) for sampler in samplers]
    assert all(len(rank) == 1 for rank in batches)
    assert rows_of(batches) == [0, 1, 2]
    assert sum(row < 0 for rank in batches for batch in rank for row in batch) == 2


def test_a_limit_is_needed() -> None:
    with pytest.raises(DataError, match="batch_size"):
        BatchSampler(LENGTHS, BatchLimits())


@pytest.mark.parametrize("until", ["first", "all"])
def test_mixtures_take_every_row_equally_often(until: str) -> None:
    parts = [np.arange(30), np.arange(30, 130)]
    mixed = MixedRows(parts, [0.5, 0.5], until, seed=3)  # type: ignore[arg-type]
    expected = [30, 30] if until == "first" else [100, 100]
    assert mixed.counts() == expected
    epochs = [mixed(epoch) for epoch in range(10)]
    assert all(len(rows) == sum(expected) for rows in epochs)
    seen = Counter(np.concatenate(epochs).tolist())
    for part, count in zip(parts, expected, strict=True):
        times = [seen[row] for row in part.tolist()]
        assert max(times) - min(times) <= 1
        assert sum(times) == 10 * count
    assert not np.array_equal(epochs[0], epochs[1])


def test_mixtures_have_epochs_of_one_length() -> None:
    mixed = MixedRows([np.arange(100), np.arange(100, 500)], [0.5, 0.5], "first", seed=0)
    sampler = BatchSampler(LENGTHS, LIMITS[1], epoch_rows=mixed)
    for epoch in range(12):
        sampler.start_at(EpochProgress(epoch))
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(row for batch in batches for row in batch) == sorted(mixed(epoch).tolist())
