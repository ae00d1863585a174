"""Writes the results: `gpu_day.json`, `gpu_day.md`, `failed.txt`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from benchmarks.gpu_day.comparison import comparisons, goals
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Entry

NOTES = (
    "Prefills of sharer and receiver on side streams are not checked: the package no longer has them, since no gain "
    "was measured.",
    "Predicted times: every part at half of the data sheet's rate of products or 0.7 of its bandwidth; launches are "
    "not included.",
)


def write_report(day: Day, entries: Sequence[Entry]) -> int:
    """Write the three files.

    Args:
        day: what was run.
        entries: of all parts.

    Returns:
        Exit code: 1 if a check failed.
    """
    failed = [entry for entry in entries if entry.is_failure]
    tables = {"goals": goals(day, entries), "predicted": comparisons(entries)}
    content = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": day.device,
        "is_tiny": day.is_tiny,
        "failed": [f"{entry.part}: {entry.name}" for entry in failed],
        "notes": NOTES,
        **tables,
        "entries": [asdict(entry) for entry in entries],
    }
    text = json.dumps(content, indent=1, default=str)
    (day.out / "gpu_day.json").write_text(text, encoding="utf-8")
    (day.out / "gpu_day.md").write_text("\n".join(_lines(day, entries, tables)) + "\n", encoding="utf-8")
    lines = (f"{e.part}: {e.name}: {' '.join(e.message.split())[:400]}\n" for e in failed)
    (day.out / "failed.txt").write_text("".join(lines), encoding="utf-8")
    counts = {status: sum(e.status == status for e in entries) for status in ("passed", "failed", "error", "skipped")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()), f"-> {day.out}", flush=True)
    return int(bool(failed))


def _lines(day: Day, entries: Sequence[Entry], tables: dict[str, Any]) -> Iterator[str]:
    size = "tiny models" if day.is_tiny else "the paper's sizes"
    yield f"# GPU day: {day.device}, {size}"
    yield from ("", *(f"- {note}" for note in NOTES))
    yield from ("", "## Goals", "", "| statement | goal | measured | holds |", "| --- | ---: | ---: | --- |")
    for goal in tables["goals"]:
        yield f"| {goal['statement']} | {goal['goal']} | {_number(goal['measured'])} | {goal['holds']} |"
    yield from ("", "## Predicted and measured", "", "| time | predicted, ms | measured, ms | ratio |")
    yield "| --- | ---: | ---: | ---: |"
    for row in tables["predicted"]:
        numbers = " | ".join(_number(row[key]) for key in ("predicted_ms", "measured_ms", "ratio"))
        yield f"| {row['time']} | {numbers} |"
    yield from ("", "## Checks and measurements", "", "| part | name | status | s | result |")
    yield "| --- | --- | --- | ---: | --- |"
    for entry in entries:
        text = _escaped(entry.message[:200] or ", ".join(_numbers(entry.result))[:600])
        yield f"| {entry.part} | {entry.name} | {entry.status} | {entry.seconds:.1f} | {text} |"


def _numbers(result: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            yield f"{prefix}{name} {_number(value)}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
