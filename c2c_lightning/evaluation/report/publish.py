"""Writes a report to files and loggers."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.errors import MissingExtraError
from c2c_lightning.evaluation.prediction_log import write_atomically
from c2c_lightning.evaluation.report.columns import COLUMNS, table_rows
from c2c_lightning.evaluation.report.plots import draw
from c2c_lightning.evaluation.report.render import continued, markdown

logger = logging.getLogger(__name__)

_SHOWN_ROWS = 10


def publish(report: Mapping[str, Any], directory: Path, loggers: Sequence[Any] = (), with_plots: bool = True) -> None:
    """Write `report.json`, `report.md` and plots, and log accuracies and tables to Lightning loggers."""
    write_atomically(directory / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_atomically(directory / "report.md", markdown(report))
    _log_failures(report)
    pictures: list[Path] = []
    try:
        pictures = draw(report, directory) if with_plots else []
    except MissingExtraError as error:
        logger.info("no plots: %s", error)
    for target in loggers:
        _log(report, target, pictures)


def _log_failures(report: Mapping[str, Any]) -> None:
    """Log answers that count as wrong because of an error, or because none was extracted."""
    for name, section in report["benchmarks"].items():
        for fault in section["faults"]:
            logger.error("%s: %s", name, fault)
        for responder, line in section["responders"].items():
            if count := line.get("begins_with_choice"):
                logger.warning("%s, %s: %s", name, responder, continued(count, line["answers"], section["scoring"]))
            for key, what in (("unparsed_rows", "no answer extracted"), ("errors_rows", "an error was raised")):
                if rows := line.get(key):
                    shown = ", ".join(map(str, rows[:_SHOWN_ROWS])) + ("..." if len(rows) > _SHOWN_ROWS else "")
                    logger.info("%s, %s: %s in %d rows (%s)", name, responder, what, len(rows), shown)


def _log(report: Mapping[str, Any], target: Any, pictures: Sequence[Path]) -> None:
    for name, section in report["benchmarks"].items():
        lines = section["responders"].items()
        target.log_metrics({f"{name}/{responder}/accuracy": line["accuracy"] for responder, line in lines})
        # Only some loggers (W&B) have tables and images.
        if hasattr(target, "log_table"):
            rows = [list(row) for row in table_rows(section)]
            target.log_table(
                key=f"{name}/responders", columns=["responder", *(column.title for column in COLUMNS)], data=rows
            )
    if hasattr(target, "log_image"):
        for picture in pictures:
            target.log_image(key=f"plots/{picture.stem}", images=[str(picture)])
