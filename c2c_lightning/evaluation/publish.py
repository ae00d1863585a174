"""Where a report goes: files and loggers."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.errors import MissingExtraError
from c2c_lightning.evaluation.plots import draw
from c2c_lightning.evaluation.predictions import write_atomically
from c2c_lightning.evaluation.render import COLUMNS, markdown, table_rows
from c2c_lightning.evaluation.report import write_report

logger = logging.getLogger(__name__)


def publish(report: Mapping[str, Any], directory: Path, loggers: Sequence[Any] = (), with_plots: bool = True) -> None:
    """Write `report.json`, `report.md` and plots, and hand everything to the loggers.

    Args:
        report: as from `build_report`.
        directory: the output folder.
        loggers: Lightning loggers; those with tables (W&B) get the tables, all get the accuracies.
        with_plots: whether to draw.
    """
    write_report(report, directory)
    write_atomically(directory / "report.md", markdown(report))
    for target in loggers:
        _log(report, target)
    if with_plots:
        _draw(report, directory)


def _log(report: Mapping[str, Any], target: Any) -> None:
    for name, section in report["benchmarks"].items():
        lines = section["responders"].items()
        target.log_metrics({f"{name}/{responder}/accuracy": line["accuracy"] for responder, line in lines})
        if hasattr(target, "log_table"):
            rows = [list(row) for row in table_rows(section)]
            target.log_table(key=f"{name}/responders", columns=list(COLUMNS), data=rows)


def _draw(report: Mapping[str, Any], directory: Path) -> None:
    try:
        draw(report, directory)
    except MissingExtraError as error:
        logger.info("no plots: %s", error)
