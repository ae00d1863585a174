"""`metrics.csv`: a logger whose file survives a resume."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsFile(Logger):
    """Appends one row per logged step to `metrics.csv`.

    Lightning's `CSVLogger` deletes an existing file, and keeps rows in memory that a kill loses. Here each row is on
    disk at once.

    Args:
        save_dir: folder of the file; `lightning fit` uses the run folder.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self._save_dir = os.fspath(save_dir)
        self._columns: list[str] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._save_dir) / "metrics.csv"

    @property
    def name(self) -> str:
        """Empty: the file is in `save_dir` itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty: the file is in `save_dir` itself."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return self._save_dir

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `fit_config.yaml` holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        if self._columns is None or not self.path.exists():
            self._columns, _ = self._read()
        if new := set(row) - set(self._columns):
            _, rows = self._read()
            self._columns = sorted({*self._columns, *new})
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def truncate(self, step: int) -> None:
        """Keep the rows before a step, which a resumed run logs again.

        Args:
            step: optimizer steps done at the checkpoint.
        """
        if self.path.exists():
            self._columns, rows = self._read()
            self._write([row for row in rows if int(row["step"]) < step])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self.path.exists():
            return [], []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            # A kill may have cut the last row short: its columns are then missing.
            rows = [row for row in reader if None not in row.values() and row.get("step")]
        return list(reader.fieldnames or []), rows

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the file in one step, so that a kill leaves the old rows or the new ones."""
        assert self._columns is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
