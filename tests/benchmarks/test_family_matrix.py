"""The family matrix: recorded results, the tables of the docs, a fast subset of the classes, and all of them."""

from pathlib import Path

import pytest
import transformers

from benchmarks.family_matrix.__main__ import PINNED, main
from benchmarks.family_matrix.classes import LMClass, language_model_classes
from benchmarks.family_matrix.matrix import FAILED, REFUSED, UNTESTED, YES, Row, row_of
from benchmarks.family_matrix.table import BEGIN, END, PAGE, read_results, render, update_page, write_results

CLASSES = {lm.title: lm for lm in language_model_classes()}
FAST = ["GPT2LMHeadModel", "Gemma3nForCausalLM", "MptForCausalLM", "Qwen3_5ForCausalLM", "BertLMHeadModel"]


def check(title: str) -> None:
    """No failure, and the recorded result where the installed version is recorded."""
    row = row_of(CLASSES[title])
    assert not row.fails, row
    recorded = {known.title: known for known in read_results().get(transformers.__version__, [])}
    assert row.cells == recorded.get(title, row).cells


@pytest.mark.parametrize("title", FAST)
def test_a_fast_subset(title: str) -> None:
    check(title)


@pytest.mark.slow
@pytest.mark.parametrize("title", sorted(set(CLASSES) - set(FAST)))
def test_every_other_class(title: str) -> None:
    check(title)


def test_the_page_shows_the_recorded_results() -> None:
    text = PAGE.read_text()
    assert text.split(BEGIN)[1].split(END)[0].strip() == render(read_results())


def test_the_pinned_version_is_recorded_first_and_nothing_fails() -> None:
    results = read_results()
    assert next(iter(results)) == PINNED
    assert not [row for rows in results.values() for row in rows if row.fails]


@pytest.mark.skipif(transformers.__version__ not in read_results(), reason="another version of transformers")
def test_every_class_of_the_installed_version_has_a_row() -> None:
    recorded = {row.title for row in read_results()[transformers.__version__]}
    assert recorded == set(CLASSES)


def test_a_class_of_tomorrow_is_untested() -> None:
    row = row_of(LMClass("QuantumForCausalLM"))
    assert set(row.cells) == {UNTESTED}
    assert "QuantumForCausalLM" in row.reason


def test_a_class_without_rules_for_its_sizes_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.family_matrix.tiny_config.SIZES", {})
    row = row_of(CLASSES["LlamaForCausalLM"])
    assert set(row.cells) == {UNTESTED}
    assert "million parameters" in row.reason


def test_results_survive_the_file_and_a_page_keeps_its_text(tmp_path: Path) -> None:
    old, new = Row("A", (YES,) * 4), Row("A", (REFUSED,) * 4, "no attention | layer")
    results = {"1": [old, Row("B", (YES, YES, FAILED, YES), "wrong")], "2": [new]}
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
    page = tmp_path / "models.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_page(results, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "no attention \\| layer" in text
    assert "Not in this version: `B`." in text
    assert "2 classes and variants: 1 pass everything, 0 are refused, 0 are untested, 1 pass in part." in text


def test_some_classes_are_printed_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    assert main(["--classes", "TrOCRForCausalLM", "--jobs", "1", "--results", str(results)]) == 0
    assert "TrOCRForCausalLM: refused" in capsys.readouterr().out
    assert not results.exists()
