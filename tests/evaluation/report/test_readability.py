"""Unreadable answers are said at the top of the report, of the terminal and in report.json, with advice."""

import io
from typing import Any

import pytest
from rich.console import Console

from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.render import markdown
from c2c_lightning.evaluation.report.terminal import show
from tests.evaluation.report.test_report import answers

KNOWN: dict[str, Any] = {"bench": {"mode": "generate", "scoring": "anchored", "chance": 0.25}}


def report(unreadable: int, responder: str = "c2c", **run: Any) -> dict[str, Any]:
    blank = answers(responder, "0" * 20, extracted=None)[:unreadable]
    return build_report(
        [*blank, *answers(responder, "1" * 20)[unreadable:], *answers("receiver", "1" * 20)], KNOWN, run
    )


@pytest.mark.parametrize(("count", "is_said"), [(0, False), (2, False), (3, True)])
def test_more_than_a_tenth_is_a_warning(count: int, is_said: bool) -> None:
    found = report(count)
    assert bool(found["warnings"]) is is_said
    assert bool(found["benchmarks"]["bench"]["warnings"]) is is_said


def test_the_warning_names_responders_and_shares_and_stands_at_the_top() -> None:
    found = report(10)
    (warning,) = found["warnings"]
    assert warning.startswith("bench: Many answers cannot be read: c2c 50%.")
    assert markdown(found).split("\n")[2] == f"**Warning.** {warning}"
    console = Console(width=1000, file=io.StringIO())
    show(found, console)
    assert console.file.getvalue().startswith(f"WARNING: {warning}")  # type: ignore[attr-defined]


def test_the_advice_fits_the_run() -> None:
    assert "mode: cloze" in report(10)["warnings"][0]
    assert "fusion_mode: prompt" not in report(10)["warnings"][0]
    assert "fusion_mode: prompt" in report(10, fusion_mode="prefill")["warnings"][0]
    assert "fusion_mode" not in report(10, "t2t", fusion_mode="prefill")["warnings"][0]


def test_controls_may_be_unreadable() -> None:
    assert report(20, "c2c:noise")["warnings"] == []
    assert report(20, "c2c:sharers=0")["warnings"]
