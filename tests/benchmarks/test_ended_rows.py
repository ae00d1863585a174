"""The benchmark of rows that leave the batch: both ways on the same prompts, and the numbers that it writes."""

import json
from pathlib import Path

from benchmarks.ended_rows import main
from tests.serving.test_model_catalogue import save
from tools.private_facts.__main__ import make_files, write


def test_both_ways_give_the_same_answers(tmp_path: Path) -> None:
    for name, rows in make_files(1, 8, seed=1).items():
        write(tmp_path / f"{name}.jsonl", rows)
    options = ["--questions", "6", "--batch_size", "4", "--shots", "1", "--rounds", "1", "--max_new_tokens", "4"]
    output = tmp_path / "numbers.json"
    arguments = ["--fuser", str(save(tmp_path, "sharer")), "--data", str(tmp_path), "--output", str(output), *options]
    assert main(arguments) == 0
    numbers = json.loads(output.read_text())
    assert (numbers["answers"], numbers["different"]) == (6, 0)
    assert numbers["ratio"] > 0
