"""Documents that only sharers read: worked examples, columns and rows that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.readers.json_lines import decode
from c2c_lightning.data.sources import PrivateDocuments
from c2c_lightning.errors import DataError
from tests.data.encoders import shared_encoder


def row(number: int, **changed: Any) -> dict[str, Any]:
    return {"document": f"Note {number}.", "question": f"Which {number}?", "answer": f"It is {number}.", **changed}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return str(path)


def turns(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"Note {number}.\n\nWhich {number}?"},
        {"role": "assistant", "content": f"It is {number}."},
    ]


def test_sharers_read_worked_examples_document_and_question_and_the_receiver_the_question(tmp_path: Path) -> None:
    examples = write(tmp_path / "examples.jsonl", [row(7), row(8), row(9)])
    source = PrivateDocuments(write(tmp_path / "rows.jsonl", [row(1)]), shots=2, examples=examples)
    messages, private = source.messages(row(1))
    assert messages == [{"role": "user", "content": "Which 1?"}, {"role": "assistant", "content": "It is 1."}]
    assert private == [*turns(7), *turns(8), turns(1)[0]]


def test_worked_examples_from_the_first_rows_are_no_rows_of_the_source(tmp_path: Path) -> None:
    source = PrivateDocuments(write(tmp_path / "rows.jsonl", [row(n) for n in range(5)]), shots=2)
    rows = [decode(entry)["question"] for entry in source.load()]
    assert rows == ["Which 2?", "Which 3?", "Which 4?"]
    assert (source.messages(row(3))[1] or [])[:4] == [*turns(0), *turns(1)]


def test_columns_have_other_names_and_an_answer_may_be_a_list(tmp_path: Path) -> None:
    given = {"text": "Note.", "ask": "Who?", "answers": ["She.", "Ada."]}
    source = PrivateDocuments("x.jsonl", "text", "ask", "answers")
    messages, private = source.messages(given)
    assert [message["content"] for message in messages] == ["Who?", "She."]
    assert private == [{"role": "user", "content": "Note.\n\nWho?"}]
    assert source.answers(given) == ["She.", "Ada."]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"document": " \n"}, "`document` is empty"),
        ({"document": None}, "`document` must be text, but is NoneType"),
        ({"answer": []}, "`answer` must be a text or a list of texts"),
        ({"answer": ["yes", ""]}, "none of them empty"),
    ],
)
def test_rows_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PrivateDocuments("x.jsonl").messages(row(1, **changed))


def test_a_missing_column_is_named_with_the_columns_of_the_row() -> None:
    with pytest.raises(DataError, match=r"no `text`; it has `document`, `question`, `answer`"):
        PrivateDocuments("x.jsonl", document_column="text").messages(row(1))


def test_worked_examples_that_are_too_few_or_do_not_fit_are_found_before_the_models_are_loaded(tmp_path: Path) -> None:
    few = write(tmp_path / "few.jsonl", [row(1)])
    with pytest.raises(DataError, match="has 1 rows, but 3 worked examples"):
        PrivateDocuments(few, shots=3, examples=few).check()
    wrong = write(tmp_path / "wrong.jsonl", [row(1, document="")])
    with pytest.raises(DataError, match=r"worked example .*wrong\.jsonl:1 does not fit: `document` is empty"):
        PrivateDocuments(few, shots=1, examples=wrong).check()


def test_other_worked_examples_are_another_fingerprint(tmp_path: Path) -> None:
    rows, examples = write(tmp_path / "rows.jsonl", [row(1)]), tmp_path / "examples.jsonl"

    def fingerprint() -> str:
        return PrivateDocuments(rows, shots=1, examples=str(examples)).fingerprint()

    write(examples, [row(2)])
    first = fingerprint()
    assert fingerprint() == first
    write(examples, [row(3)])
    assert fingerprint() != first


def test_unreadable_rows_and_documents_longer_than_the_sharers_context_are_counted(tmp_path: Path) -> None:
    rows = [*(row(n) for n in range(30)), row(30, document=""), row(31, document="word " * 500)]
    data = InstructionDataModule(
        PrivateDocuments(write(tmp_path / "rows.jsonl", rows)),
        validation_share=0.0,
        max_length=300,
        max_bad_share=0.1,
        batch_size=1,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(list(data.train_dataloader())) == 30
    assert "`document` is empty" in data.report.to_text()
    assert "longer than" in data.report.to_text()
