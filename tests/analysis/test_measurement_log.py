"""Long measurements resume."""

from pathlib import Path

from c2c_lightning.analysis.measurement_log import MeasurementLog


def test_results_are_found_again_with_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    MeasurementLog(file, {"rows": (1, 2)}).add("a", {"loss": 0.5})
    again = MeasurementLog(file, {"rows": (1, 2)})
    assert again.is_resumed
    assert again["a"] == {"loss": 0.5}
    assert "b" not in again


def test_other_settings_start_from_the_beginning(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    MeasurementLog(file, {"rows": 1}).add("a", 1)
    other = MeasurementLog(file, {"rows": 2})
    assert "a" not in other
    other.add("b", 2)
    assert "a" not in MeasurementLog(file, {"rows": 2})
    assert MeasurementLog(file, {"rows": 2})["b"] == 2


def test_half_a_line_of_a_killed_run_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    log = MeasurementLog(file, {})
    log.add("a", 1)
    log.add("b", 2)
    file.write_text(file.read_text()[:-4])
    again = MeasurementLog(file, {})
    assert "b" not in again
    again.add("c", 3)
    assert [key for key in "abc" if key in MeasurementLog(file, {})] == ["a", "c"]


def test_nothing_is_written_before_the_first_result(tmp_path: Path) -> None:
    MeasurementLog(tmp_path / "new" / "log.jsonl", {})
    assert not (tmp_path / "new").exists()
