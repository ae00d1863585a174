"""The record of one part: every check and measurement with its status, written to a file after each."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Result = dict[str, Any]


class Skipped(Exception):
    """Raised by a check that does not apply on this machine; the message is the reason."""


class Refuted(AssertionError):
    """Raised by a check whose statement does not hold, with the numbers that show it."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


@dataclass
class Entry:
    """One check or measurement.

    Attributes:
        part: the part of the run.
        name: unique within the part.
        status: `passed`, `failed` (a statement does not hold), `error` (an exception) or `skipped`.
        seconds: wall time.
        result: numbers.
        message: reason of a failure or of a skip.
    """

    part: str
    name: str
    status: str
    seconds: float = 0.0
    result: Result = field(default_factory=dict)
    message: str = ""

    def __str__(self) -> str:
        """One line, for a terminal."""
        return f"{self.status:8}{self.seconds:7.1f} s  {self.part}: {self.name}  {' '.join(self.message.split())[:300]}"

    @property
    def is_failure(self) -> bool:
        """Whether the entry belongs into the list of failed checks."""
        return self.status in ("failed", "error")


class Journal:
    """The entries of one part, in order.

    Attributes:
        entries: so far.
    """

    def __init__(self, part: str, path: Path | None) -> None:
        """Begin an empty record.

        Args:
            part: its name.
            path: JSON file that is rewritten after each entry, so that a crash loses nothing; None: no file.
        """
        self.part, self._path, self.entries = part, path, list[Entry]()

    def check(self, name: str, work: Callable[[], Result | None]) -> Result:
        """Run a check or a measurement; the next one runs even if it fails.

        Args:
            name: of the entry.
            work: returns numbers; raises `Refuted` or `AssertionError` for a failed check, `Skipped` where it does not
                apply, any other exception for an error.

        Returns:
            The numbers; empty after an error.
        """
        entry, begin = Entry(self.part, name, "passed"), time.perf_counter()
        # The file names the running check, should the process die in it.
        self._write(Entry(self.part, name, "error", message="The process ended within this check."))
        try:
            entry.result = work() or {}
        except Skipped as reason:
            entry.status, entry.message = "skipped", str(reason)
        except AssertionError as failure:
            entry.status, entry.message = "failed", str(failure)[:2000] or _last_lines(failure)
            entry.result = getattr(failure, "result", {})
        except Exception as error:
            entry.status, entry.message = "error", _last_lines(error)
        entry.seconds = round(time.perf_counter() - begin, 3)
        self.entries.append(entry)
        self._write()
        print(entry, flush=True)
        return entry.result

    def _write(self, *unfinished: Entry) -> None:
        if self._path is not None:
            write_entries(self._path, [*self.entries, *unfinished])


def write_entries(path: Path, entries: list[Entry]) -> None:
    """Write entries as JSON, by way of a temporary file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(entry) for entry in entries], indent=1, default=str), encoding="utf-8")
    partial.replace(path)


def read_entries(path: Path) -> list[Entry]:
    """The entries in a file; none if it does not exist."""
    return [Entry(**values) for values in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def _last_lines(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-8:])[:2000]
