"""Launches and memory traffic of the fuser in inference, counted at the paper's sizes."""

import json

import pytest
import torch

from benchmarks import fuser_launches
from benchmarks.fuser_launches import measure, moved_bytes


def test_launches_and_traffic_stay_as_small_as_they_are() -> None:
    short, long = measure(170), measure(2048)
    assert short["launches"] == long["launches"] <= 66
    assert long["gigabytes"] < 14  # in one pass of 28 layers of 2,047 tokens, 0.24 GB each way
    assert measure(2048, torch.bfloat16)["gigabytes"] < 8.5


def test_numbers_that_are_repeated_count_once() -> None:
    assert moved_bytes(torch.zeros(3, 1).expand(3, 5)) == 12
    assert moved_bytes(torch.zeros(3, 5)) == 60


def test_the_command_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuser_launches.main(["--tokens", "9"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert set(results) == {"9 tokens, float32", "9 tokens, bfloat16"}
