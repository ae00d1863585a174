"""`metrics.csv`: every row on disk at once, new columns, and what a resume keeps."""

import csv
from pathlib import Path

from c2c_lightning.training.metrics_file import MetricsFile


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_rows_with_new_columns(tmp_path: Path) -> None:
    log = MetricsFile(str(tmp_path / "run"))
    log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"b": 2.0}, step=1)
    log.log_metrics({"a": 3.0}, step=2)
    assert rows(log.path) == [{"step": "0", "a": "1.0"}, {"step": "1", "b": "2.0"}, {"step": "2", "a": "3.0"}]


def test_a_new_logger_appends(tmp_path: Path) -> None:
    for step in range(2):
        MetricsFile(str(tmp_path)).log_metrics({f"m{step}": 1.0}, step=step)
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["0", "1"]


def test_truncation_drops_later_rows_and_one_that_a_kill_cut_short(tmp_path: Path) -> None:
    log = MetricsFile(str(tmp_path))
    for step in range(5):
        log.log_metrics({"loss": 0.5}, step=step)
    with log.path.open("a") as file:
        file.write("0.")
    again = MetricsFile(str(tmp_path))
    again.truncate(3)
    again.log_metrics({"loss": 0.25}, step=3)
    assert [(row["step"], row["loss"]) for row in rows(log.path)] == [
        ("0", "0.5"), ("1", "0.5"), ("2", "0.5"), ("3", "0.25")
    ]  # fmt: skip
