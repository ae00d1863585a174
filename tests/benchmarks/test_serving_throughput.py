"""The throughput benchmark measures the same answers three times."""

from pathlib import Path

import pytest

from benchmarks.serving_throughput import measure, questions
from tests.serving.test_model_catalogue import save


def test_questions_differ_as_long_as_there_are_enough() -> None:
    assert len(set(questions(64))) == 64
    assert len(questions(1000)) == 1000


@pytest.mark.slow
def test_runs_of_the_server_give_equal_answers(tmp_path: Path) -> None:
    result = measure(save(tmp_path, "sharer"), "c2c", num_requests=8, clients=4)
    assert result["same_answers"]
    assert [(run["clients"], run["max_batch"]) for run in result["runs"]] == [(1, 1), (4, 1), (4, 4)]
    assert all(run["tokens_per_second"] >= run["requests_per_second"] > 0 for run in result["runs"])
