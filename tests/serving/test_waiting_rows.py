"""The queue, and the choice of batches."""

import threading
import time
from types import SimpleNamespace

import pytest

from c2c_lightning.serving.answer_row import AnswerRow, AnswerSettings
from c2c_lightning.serving.request_control import RequestControl
from c2c_lightning.serving.served_models import ServedModel
from c2c_lightning.serving.waiting_rows import QueueFullError, QueueLimits, ShuttingDownError, WaitingRow, WaitingRows


class Named(ServedModel):
    """A model that only has a name."""

    kind, name = "fused", "model"
    receiver = sharers = prepare = prepare_text = answer = None  # type: ignore[assignment]


def waiting(group: str = "a", tokens: int = 10, limit: float = 60.0) -> WaitingRow:
    prompt = SimpleNamespace(group=group, num_tokens=tokens)
    return WaitingRow(Named(), AnswerRow(prompt, AnswerSettings(10), RequestControl(limit)))


def test_a_batch_is_the_oldest_answer_and_those_of_its_group() -> None:
    rows = WaitingRows(QueueLimits(batch_window=0.0))
    a, b, c, d = waiting("a"), waiting("b"), waiting("a"), waiting("b")
    rows.put([a, b])
    rows.put([c, d])
    batch = rows.take()
    assert batch == [a, c]
    rows.done(batch)
    assert rows.take() == [b, d]
    assert len(rows) == 0


def test_batches_are_bounded_in_answers_and_in_padded_tokens() -> None:
    rows = WaitingRows(QueueLimits(max_batch=3, max_batch_tokens=120, batch_window=0.0, busy_window=0.0))
    short, long = [waiting() for _ in range(4)], waiting(tokens=50)
    rows.put(short)
    assert rows.take() == short[:3]
    rows.put([long])
    assert rows.take() == [short[3], long]  # 2 * (50 + 10) tokens
    rows.put([long, *short])
    assert rows.take() == [long, short[0]]
    enormous = waiting(tokens=10_000)
    rows = WaitingRows(QueueLimits(max_batch_tokens=120, batch_window=0.0))
    rows.put([enormous])
    assert rows.take() == [enormous]  # alone, whatever its length


def test_answers_that_arrive_within_the_window_join() -> None:
    rows, taken = WaitingRows(QueueLimits(batch_window=0.3)), list[list[WaitingRow]]()
    thread = threading.Thread(target=lambda: taken.append(rows.take()))
    thread.start()
    first, second = waiting(), waiting()
    rows.put([first])
    time.sleep(0.05)
    rows.put([second])
    thread.join()
    assert taken == [[first, second]]


def test_while_a_batch_of_the_group_runs_the_next_one_collects() -> None:
    rows = WaitingRows(QueueLimits(batch_window=0.0, busy_window=60.0))
    running, first, second, other = waiting("a"), waiting("a"), waiting("a"), waiting("b")
    rows.put([running])
    assert rows.take() == [running]
    rows.put([first, other])
    assert rows.take() == [other]  # of a group that does not run
    rows.put([second])
    rows.done([running])
    assert rows.take() == [first, second]


def test_a_long_answer_holds_up_others_for_the_busy_window_only() -> None:
    rows = WaitingRows(QueueLimits(batch_window=0.0, busy_window=0.1))
    long, short = waiting(), waiting()
    rows.put([long])
    rows.take()
    rows.put([short])
    assert rows.take() == [short]
    assert time.monotonic() - short.row.arrival >= 0.1


def test_a_full_batch_does_not_wait_for_the_window() -> None:
    rows = WaitingRows(QueueLimits(max_batch=2, batch_window=60.0))
    rows.put([waiting(), waiting()])
    assert len(rows.take()) == 2


def test_a_full_queue_refuses_all_answers_of_a_request() -> None:
    rows = WaitingRows(QueueLimits(max_waiting=2, batch_window=0.0))
    rows.put([waiting()])
    with pytest.raises(QueueFullError, match="1 answers wait already"):
        rows.put([waiting(), waiting()])
    assert len(rows) == 1


def test_closing_returns_what_waits_and_wakes_all_threads() -> None:
    rows, taken = WaitingRows(QueueLimits(batch_window=60.0)), list[list[WaitingRow]]()
    threads = [threading.Thread(target=lambda: taken.append(rows.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    one = waiting()
    rows.put([one])
    assert rows.close() == [one]
    for thread in threads:
        thread.join(5)
    assert taken == [[], [], []]
    with pytest.raises(ShuttingDownError):
        rows.put([waiting()])
