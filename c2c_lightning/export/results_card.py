"""The results of an evaluation (`report.json`) in the model card of a fuser."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from c2c_lightning.errors import FuserFormatError, ReportError
from c2c_lightning.export.card import card_table, model_card
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.export.format import CARD_NAME, WEIGHTS_NAME, num_parameters, read_description
from c2c_lightning.export.fuser_tensors import precision_free_checksum, read_tensors
from c2c_lightning.export.json_file import read_json

REPORT_NAME = "report.json"


def write_results_card(directory: str | Path, report: str | Path) -> None:
    """Rewrite the card of a fuser directory with the tables and verdicts of an evaluation of this fuser.

    Args:
        directory: fuser directory.
        report: `report.json` of `lightning test`, or the folder that holds it.

    Raises:
        ReportError: no report there, or one that measured other weights.
        FuserFormatError: no fuser in the directory.
    """
    folder, content = Path(directory), read_report(Path(report))
    description, tensors = read_description(folder), read_tensors(folder / WEIGHTS_NAME)
    measured = content["run"].get("fuser_checksums")
    if measured is not None and precision_free_checksum(tensors) not in measured:
        raise ReportError(
            f"{report} measured other weights than those in {folder / WEIGHTS_NAME}. Evaluate this fuser: "
            f"lightning test --config YAML --model.fuser {folder}"
        )
    text = card_with_results(description, num_parameters(tensors), content, str(report))
    staging = folder / f".{CARD_NAME}.{os.getpid()}"
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, folder / CARD_NAME)


def read_report(path: Path) -> dict[str, Any]:
    """The content of a `report.json`, or of the one in a folder.

    Raises:
        ReportError: it is missing or no report.
    """
    file = path / REPORT_NAME if path.is_dir() else path
    try:
        content = read_json(file)
    except FuserFormatError as error:
        raise ReportError(f"{file} is no report of `lightning test`: it is missing or no JSON object.") from error
    sections = content.get("benchmarks")
    if not isinstance(sections, dict) or not sections or not isinstance(content.get("run"), dict):
        raise ReportError(f"{file} is no report of `lightning test`: it has no benchmarks or no description of a run.")
    return content


def card_with_results(description: FuserDescription, parameters: int, report: Mapping[str, Any], where: str) -> str:
    """The text of the card; `where` is the report's file, for messages."""
    try:
        results = "\n\n".join(_sections(report))
        scores = {name: section["responders"]["c2c"] for name, section in report["benchmarks"].items()}
        accuracies = {name: float(line["accuracy"]) for name, line in scores.items()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ReportError(
            f"{where} has no complete results of C2C ({type(error).__name__}: {error}). Evaluate the fuser with the "
            "responder `c2c`, by a version of this package whose report has version 1."
        ) from error
    return model_card(description, parameters, results, accuracies)


def _sections(report: Mapping[str, Any]) -> Iterator[str]:
    """One table and verdict for each benchmark: responders and controls on the same questions."""
    run = report["run"]
    yield f"Measured with `lightning test`, c2c_lightning {run.get('package', '?')}, on {run.get('device', '?')}."
    if isinstance(run.get("fuser"), list):
        yield f"Means of {len(run['fuser'])} fusers, of which this is one."
    for name, section in report["benchmarks"].items():
        chance = section.get("chance")
        guessing = "" if chance is None else f", {chance:.1%} by guessing"
        yield f"### {name}\n\n{section['n']} questions (`{section['mode']}`, `{section['scoring']}`{guessing})."
        yield card_table(("responder", "right, %", "95 % interval", "ms per answer"), _rows(section["responders"]))
        yield str(section["verdict"]["text"])


def _rows(responders: Mapping[str, Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            f"`{name}`",
            f"{100 * line['accuracy']:.1f}",
            f"{100 * line['ci95'][0]:.1f}-{100 * line['ci95'][1]:.1f}",
            f"{1000 * line['seconds_per_answer']:.1f}",
        )
        for name, line in responders.items()
    ]
