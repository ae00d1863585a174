"""Results of a long measurement, one line of JSON each, so that an interrupted one goes on where it stopped."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MeasurementLog:
    """Results by key in a file; those of other settings are discarded.

    Args:
        file: the file; its folder is made with the first result.
        settings: all that the results depend on, as plain data.
    """

    def __init__(self, file: str | Path, settings: Mapping[str, Any]) -> None:
        self.file = Path(file)
        # As read back: tuples become lists.
        self._first = json.loads(json.dumps({"settings": settings}))
        lines = self._lines()
        self.is_resumed = bool(lines) and lines[0] == self._first
        self._results = {line["key"]: line["result"] for line in lines[1:]} if self.is_resumed else {}

    def __contains__(self, key: str) -> bool:
        """Whether a result is known."""
        return key in self._results

    def __getitem__(self, key: str) -> Any:
        """A result."""
        return self._results[key]

    def add(self, key: str, result: Any) -> None:
        """Keep a result, flushed to disk."""
        if not self.is_resumed:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self._first) + "\n", encoding="utf-8")
            self.is_resumed = True
        with self.file.open("a", encoding="utf-8") as file:
            # A killed run may have left half a line.
            file.write(("" if _ends_line(self.file) else "\n") + json.dumps({"key": key, "result": result}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._results[key] = json.loads(json.dumps(result))

    def _lines(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        lines = []
        for line in self.file.read_text(encoding="utf-8").split("\n"):
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # empty, or the process was killed during this write
        return [line for line in lines if isinstance(line, dict) and ("key" in line or "settings" in line)]


def _ends_line(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 1))
        return opened.read(1) in (b"", b"\n")
