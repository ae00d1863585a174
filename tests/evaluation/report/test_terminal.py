"""Tables in the terminal never cut a number, whatever the width."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.columns import filled_columns
from c2c_lightning.evaluation.report.terminal import show
from tests.evaluation.report.test_report import KNOWN, answers

NAMES = (
    "receiver", "receiver:document", "sharer", "sharer:1", "t2t", "t2t:answer", "routing", "c2c", "t-c2c",
    "c2c:sharers=0+1+2+3+4+5+6", "c2c:mismatched", "c2c:shuffled", "c2c:zero", "c2c:noise", "c2c:gates_closed",
)  # fmt: skip


def wide_report() -> dict[str, Any]:
    """All responders, with every column filled and long numbers."""
    more = {"seconds": 12345.678, "bytes_sent": 123_456_789, "written": True, "follows_donor": True, "confidence": 0.5}
    predictions = [
        answer
        for n, name in enumerate(NAMES)
        for fuser in range(2)
        for answer in (
            *answers(name, "1" * n + "0" * (97 - n), fuser=fuser, **more),
            *answers(name, "1" * 3, fuser=fuser, extracted=None, **more),
            *answers(name, "0" * 100, fuser=fuser, error="X: y", **more)[97:],
        )
    ]
    return build_report(predictions, KNOWN, {})


def shown(report: dict[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    show(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_every_number_is_whole_and_every_line_fits(width: int) -> None:
    report = wide_report()
    text = shown(report, width)
    columns, rows = filled_columns(report["benchmarks"]["bench"])
    assert len(columns) >= 14
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    words = re.split(r"\s{1,}", text)
    for _, *cells in rows:
        for cell in cells:
            assert all(part in words for part in cell.split()), cell


def test_names_are_folded_and_repeated_in_every_part() -> None:
    text = shown(wide_report(), 80)
    parts = text.count("responder ")
    assert parts > 1
    assert len(re.findall(r"^c2c:sharers=0\+1\+2\+\b", text, re.MULTILINE)) == parts


def test_a_wide_terminal_gets_one_table() -> None:
    assert shown(wide_report(), 300).count("responder ") == 1
