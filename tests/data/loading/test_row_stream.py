"""Endless streams: no row is lost, and any number of processes and workers continue a position."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pytest

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.loading.step_plan import Processes
from c2c_lightning.data.loading.stream_loader import StreamLoader
from c2c_lightning.data.loading.stream_loaders import StreamLoaders
from c2c_lightning.data.preprocessing.prepare import Settings
from c2c_lightning.data.row_lengths import BatchLimits
from c2c_lightning.data.sources import Messages, Mixture
from tests.data.encoders import shared_encoder
from tests.data.rows import write_chat

ROWS, BATCH, BLOCK = 48, 4, 12


@pytest.fixture
def source(tmp_path: Path) -> Messages:
    return Messages(write_chat(tmp_path / "a.jsonl", ROWS), streaming=True)


def loaders(
    data: Messages | Mixture, world_size: int = 1, workers: int = 0, batch_size: int = BATCH, accumulate: int = 1
) -> list[StreamLoader]:
    """One loader for each process."""
    settings = Settings(shared_encoder(), Path("unused"), BatchLimits(batch_size), num_workers=workers)
    made = StreamLoaders(data, None, settings, BLOCK)
    return [made.train_loader(Processes(rank, world_size, accumulate)) for rank in range(world_size)]


def rows_of(batches: Iterable[TrainingBatch]) -> list[tuple[int, ...]]:
    """The tokens of each row, which tell rows apart."""
    return [tuple(row.tolist()) for batch in batches for row in batch.response_ids]


def unpadded(rows: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [tuple(token for token in row if token > 2) for row in rows]


def take(loader: StreamLoader, count: int) -> list[tuple[int, ...]]:
    return unpadded(rows_of(islice(loader, count)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_each_row_comes_once_in_each_round(workers: int, world_size: int, source: Messages) -> None:
    per_round = ROWS // BATCH // world_size
    rounds = [take(loader, 2 * per_round) for loader in loaders(source, world_size, workers)]
    seen = Counter(chain(*rounds))
    assert len(seen) == ROWS
    assert set(seen.values()) == {2}


def test_rows_are_shuffled_and_reproducible(source: Messages) -> None:
    first, again = (take(loaders(source)[0], 6) for _ in range(2))
    assert first == again
    (table_order,) = (take(loaders(source)[0], BLOCK // BATCH),)
    assert table_order != sorted(table_order)
    assert set(first[:BLOCK]) != set(first[BLOCK:])


def test_a_mixture_has_exact_shares(tmp_path: Path, source: Messages) -> None:
    other = Messages(write_chat(tmp_path / "b.jsonl", 10, seed=1), streaming=True)
    of_source = set(take(loaders(source)[0], ROWS // BATCH))
    rows = take(loaders(Mixture([source, other], [3.0, 1.0]))[0], 2 * ROWS // BATCH)
    assert sum(row in of_source for row in rows) == 0.75 * len(rows)


def steps(made: list[StreamLoader], count: int, accumulate: int = 1) -> list[list[tuple[int, ...]]]:
    """The rows of the next optimizer steps over all processes."""
    rows = [[take(loader, accumulate) for _ in range(count)] for loader in made]
    return [sorted(chain(*of_step)) for of_step in zip(*rows, strict=True)]


@pytest.mark.parametrize("settings", [(2, 0, 4, 1), (1, 2, 8, 1), (2, 2, 2, 2), (4, 0, 1, 2), (1, 0, 4, 2)])
def test_processes_and_workers_do_not_change_the_rows_of_a_step(
    settings: tuple[int, int, int, int], source: Messages
) -> None:
    expected = steps(loaders(source, batch_size=8), 12)
    assert steps(loaders(source, *settings), 12, settings[-1]) == expected


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_another_number_of_processes_continues_exactly(before: int, after: int, source: Messages) -> None:
    expected = steps(loaders(source, batch_size=8), 9)
    first = loaders(source, before, batch_size=8 // before)
    done = steps(first, 4)
    following = loaders(source, after, batch_size=8 // after)
    assert {loader.resume([first[0].state(4, float("inf"))]) for loader in following} == {4}
    assert done + steps(following, 5) == expected


def test_an_unfinished_step_is_done_again(source: Messages) -> None:
    expected = steps(loaders(source, accumulate=2), 5, 2)
    (first,), (second,) = loaders(source, accumulate=2), loaders(source, accumulate=2)
    take(first, 5)
    assert second.resume([first.state(5, float("inf"))]) == 4
    assert steps([second], 3, 2) == expected[2:]


def test_steps_of_another_size_are_named(source: Messages, caplog: pytest.LogCaptureFixture) -> None:
    (first,), (second,) = loaders(source), loaders(source, batch_size=8)
    take(first, 2)
    second.resume([first.state(2, float("inf"))])
    assert "another size than those of the checkpoint" in caplog.text
    assert len(take(second, 2)) == 16


def test_a_place_in_the_middle_of_a_block(source: Messages) -> None:
    (whole,) = loaders(source)
    expected = take(whole, 9)
    (first,) = loaders(source)
    head = take(first, 4)
    (second,) = loaders(source)
    second.resume([first.state(4, float("inf"))])
    assert head + take(second, 5) == expected


def test_a_streamed_data_set_of_the_hub(source: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `datasets`, with a local file where the hub would be."""
    asked: list[tuple[str, str | None, str | None]] = []
    load = datasets.load_dataset

    def from_file(name: str, subset: str | None, revision: str | None, **options: Any) -> Any:
        asked.append((name, subset, revision))
        return load("json", data_files=source.path, **options)

    monkeypatch.setattr(datasets, "load_dataset", from_file)
    hub = Messages("owner/name", subset="chat", revision="main", streaming=True)
    (loader,) = loaders(hub)
    assert set(asked) == {("owner/name", "chat", "main")}
    seen = take(loader, ROWS // BATCH)
    assert sorted(seen) == sorted(take(loaders(source)[0], ROWS // BATCH))
    (whole,), (resumed,) = loaders(hub), loaders(hub)
    expected = take(whole, 5)
    resumed.resume([whole.state(5, float("inf"))])
    assert expected + take(resumed, 7) == seen
