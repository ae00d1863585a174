"""The log of predictions: resumption, one line for each key, order."""

import json
from dataclasses import replace
from pathlib import Path

from c2c_lightning.evaluation.prediction_log import Prediction, PredictionLog, write_atomically

ONE = Prediction("bench", "c2c", 0, 0, "q0", "s", "Q", "line\u2028separator", "A", "A", 1.0, True, seconds=0.5)


def some(count: int, responder: str = "c2c") -> list[Prediction]:
    return [replace(ONE, index=index, responder=responder) for index in range(count)]


def test_predictions_are_read_back(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.start("f", {})
    log.append(some(3))
    PredictionLog(tmp_path, rank=1).append(some(2, "receiver"))
    again = PredictionLog(tmp_path)
    again.start("f", {})
    assert sorted(p.key for p in again.read()) == sorted(p.key for p in some(3) + some(2, "receiver"))
    assert next(p for p in again.read() if p.index == 0) == some(2, "receiver")[0] or ONE


def test_truncated_line_is_dropped(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.start("f", {})
    log.append(some(2))
    part = tmp_path / ".parts" / "0.jsonl"
    part.write_bytes(part.read_bytes()[:-20])
    assert [p.index for p in log.read()] == [0]
    log.append([replace(ONE, index=1)])
    assert [p.index for p in log.read()] == [0, 1]


def test_another_fingerprint_starts_from_the_beginning(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path)
    log.start("f", {"config": 1})
    log.append(some(2))
    log.join([p.key for p in some(2)])
    log.start("f", {})
    assert len(log.read()) == 2
    log.start("g", {})
    assert log.read() == []
    assert json.loads((tmp_path / "run.json").read_text())["fingerprint"] == "g"


def test_join_orders_predictions(tmp_path: Path) -> None:
    first, second = PredictionLog(tmp_path, 0), PredictionLog(tmp_path, 1)
    first.start("f", {})
    second.append(some(4)[::-2])
    first.append([*some(4)[::2], ONE])
    order = [p.key for p in some(4)]
    assert [p.key for p in first.join(order)] == order
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3]
    assert not (tmp_path / ".parts").exists()


def test_files_are_written_atomically(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a.txt", "text")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.txt"]
