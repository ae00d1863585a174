"""Rows chosen by the predictions of an evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages, Mixture, MultipleChoice, SelectedRows
from c2c_lightning.errors import DataError
from tests.data.encoders import shared_encoder


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return str(path)


def question(number: int) -> dict[str, Any]:
    return {"id": f"q{number}", "question": f"Which {number}?", "choices": ["yes", "no"], "answer": 0}


def predicted(number: int, responder: str, correct: bool, **more: Any) -> dict[str, Any]:
    return {"id": f"q{number}", "responder": responder, "correct": correct, **more}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Six questions; only the sharer knows 1 and 4; 5 was not asked."""
    known = {0: (True, True), 1: (False, True), 2: (True, False), 3: (False, False), 4: (False, True)}
    lines = [predicted(n, who, known[n][m]) for n in known for m, who in enumerate(("receiver", "sharer"))]
    return write(tmp_path / "rows.jsonl", [question(n) for n in range(6)]), write(tmp_path / "predictions.jsonl", lines)


def kept(source: SelectedRows) -> list[str]:
    found = []
    for number in range(6):
        try:
            found.append(source.messages(question(number))[0][0]["content"][10:17])
        except DataError:
            continue
    return found


def test_rows_that_only_the_sharer_knows(files: tuple[str, str]) -> None:
    rows, predictions = files
    assert kept(SelectedRows(MultipleChoice(rows), predictions)) == ["Which 1", "Which 4"]
    assert kept(SelectedRows(MultipleChoice(rows), predictions, ["receiver"], [])) == ["Which 0", "Which 2"]


def test_several_runs_must_all_be_right(tmp_path: Path) -> None:
    lines = [predicted(0, "c2c", right, draw=draw) for draw, right in enumerate((True, False))]
    source = SelectedRows(MultipleChoice("x.jsonl"), write(tmp_path / "p.jsonl", lines), ["c2c"], [])
    assert kept(source) == []


def test_left_out_rows_are_counted_and_the_others_weigh_more(files: tuple[str, str], tmp_path: Path) -> None:
    rows, predictions = files
    data = InstructionDataModule(
        Mixture([SelectedRows(MultipleChoice(rows), predictions), MultipleChoice(rows)], [1.0, 1.0]),
        validation_share=0.0,
        batch_size=1,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(list(data.train_dataloader())) == 4
    report = data.report.to_text()
    assert "dropped, not in the selection: 3" in report
    assert "dropped, without predictions: 1" in report


def test_other_predictions_are_another_fingerprint(files: tuple[str, str]) -> None:
    rows, predictions = files
    first = SelectedRows(MultipleChoice(rows), predictions).fingerprint()
    assert SelectedRows(MultipleChoice(rows), predictions).fingerprint() == first
    assert SelectedRows(MultipleChoice(rows), predictions, ["receiver"]).fingerprint() != first
    write(Path(predictions), [predicted(1, "sharer", True), predicted(1, "receiver", False)])
    assert SelectedRows(MultipleChoice(rows), predictions).fingerprint() != first


def test_what_does_not_fit_is_named(files: tuple[str, str], tmp_path: Path) -> None:
    rows, predictions = files
    with pytest.raises(DataError, match="has no answers of 'sharer:1'; it has those of receiver, sharer"):
        SelectedRows(MultipleChoice(rows), predictions, ["sharer:1"]).check()
    with pytest.raises(DataError, match=r"rows\.jsonl:1 is no prediction of `lightning test`"):
        SelectedRows(MultipleChoice(rows), rows).check()
    with pytest.raises(DataError, match="has no `id`"):
        SelectedRows(Messages("x.jsonl"), predictions).messages({"question": "?"})
