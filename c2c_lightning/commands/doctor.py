"""`lightning doctor`: a report on the installation, for its user and for bug reports."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from jsonargparse import ArgumentError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from c2c_lightning.commands.doctor_model import LanguageModel
from c2c_lightning.commands.doctor_sections import Caches, Devices, Extras, Finding, Program, Section, Versions
from c2c_lightning.commands.parsing import CommandParser


def run_doctor(args: Sequence[str]) -> None:
    """Print versions, devices, extras, cache folders, and which package owns the command `lightning`.

    With --model: the layers of a language model that take part, and whether it fits the fuser of --fuser. Exits with 1
    if a part that every run needs does not work, or if the model is refused or fits no role of the fuser.
    """
    parser = CommandParser(prog="lightning doctor", description=run_doctor.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", type=str | None, help="language model: a directory or hub id, or `embedded:NAME`")
    parser.add_argument("--fuser", type=str | None, help="fuser directory or hub id that the model is compared with")
    options = parser.options(args[1:])
    if options.fuser is not None and options.model is None:
        raise ArgumentError(None, "--fuser needs --model, the language model that is compared with it")
    sections: list[Section] = [Versions(), Devices(), Extras(), Caches(), Program()]
    if options.model is not None:
        sections = [LanguageModel(options.model, options.fuser)]
    report = {section.title: list(section.findings()) for section in sections}
    if options.json:
        lines = {title: [asdict(finding) for finding in findings] for title, findings in report.items()}
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 120))
    if any(finding.is_problem for findings in report.values() for finding in findings):
        raise SystemExit(1)


def show(report: dict[str, list[Finding]], console: Console) -> None:
    """Print a report, problems in red."""
    for title, findings in report.items():
        table = Table.grid(padding=(0, 2))
        for finding in findings:
            # As `Text`, since brackets of a pip command would be markup.
            cells = (Text(" !"[finding.is_problem]), Text(finding.name), Text(finding.text))
            table.add_row(*cells, style="red" if finding.is_problem else "")
        console.print(Text(title, "bold"))
        console.print(table)
