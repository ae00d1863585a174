"""Short runs leave losses in `metrics.csv`."""

import csv
from pathlib import Path

import pytest

from c2c_lightning.training.metrics_file import MetricsFile
from tests.training.runs import loader, module, trainer


@pytest.mark.parametrize(("steps", "every", "logged"), [(5, 50, [0, 1, 2, 3, 4]), (4, 2, [1, 3])])
def test_a_run_shorter_than_the_interval_is_logged(
    models: Path, tmp_path: Path, steps: int, every: int, logged: list[int]
) -> None:
    made = module(models)
    run = trainer(tmp_path, steps, logger=[MetricsFile(str(tmp_path))], log_every_n_steps=every)
    run.fit(made, loader(made, [[n] for n in range(steps)]))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == logged
