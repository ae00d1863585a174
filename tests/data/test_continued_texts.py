"""Rows whose response continues a text that only sharers read."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import ContinuedTexts, Mixture, PrivateDocuments
from c2c_lightning.errors import DataError
from tests.data.encoders import shared_encoder

WORDS = [f"w{number}" for number in range(300)]


def text_of(start: int, count: int) -> str:
    return " ".join(WORDS[start : start + count])


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return str(path)


def parts(source: ContinuedTexts, row: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Words of the sharers' text, of the beginning and of the continuation."""
    messages, private = source.messages(row)
    assert private is not None
    document, _, again = private[-1]["content"].rpartition("\n\n")
    assert again == messages[0]["content"]
    return document.split(), messages[0]["content"].split(), messages[1]["content"].split()


def test_the_receiver_continues_the_beginning_of_the_sharers_text() -> None:
    source = ContinuedTexts("x.jsonl", question="{beginning}", beginning_words=(2, 5), continuation_words=(1, 4))
    for start in range(100):
        document, beginning, continuation = parts(source, {"text": text_of(start, 20)})
        assert document == WORDS[start : start + 20]
        assert [*beginning, *continuation] == document[: len(beginning) + len(continuation)]
        assert 2 <= len(beginning) <= 5
        assert 1 <= len(continuation) <= 4


def test_all_lengths_of_the_ranges_and_many_places_of_a_long_text_are_drawn() -> None:
    source = ContinuedTexts("x.jsonl", max_words=30, beginning_words=(2, 5), continuation_words=(1, 4))
    drawn = [parts(source, {"text": text_of(start, 100)}) for start in range(150)]
    assert {len(document) for document, _, _ in drawn} == {30}
    assert {len(continuation) for _, _, continuation in drawn} == {1, 2, 3, 4}
    assert {len(beginning) for _, beginning, _ in drawn} == {5, 6, 7, 8}  # with the three words `Continue the text:`
    assert len({int(document[0][1:]) - start for start, (document, _, _) in enumerate(drawn)}) > 40


def test_a_row_is_the_same_in_every_process_and_another_with_another_seed() -> None:
    rows = [{"text": text_of(start, 200)} for start in range(10)]
    first, again, other = ([ContinuedTexts("x.jsonl", seed=seed).messages(row) for row in rows] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    # Not drawn from Python's `hash`, which differs between processes.
    assert ContinuedTexts("x.jsonl", seed=1).messages(rows[0])[0][1]["content"] == CONTINUATION


CONTINUATION = "w19 w20 w21 w22 w23 w24 w25 w26 w27 w28 w29 w30"


def test_a_text_of_the_fewest_words_is_divided_and_a_shorter_one_is_not_used(tmp_path: Path) -> None:
    rows = [{"text": text_of(0, count)} for count in (4, 5, 6)]
    data = InstructionDataModule(
        ContinuedTexts(write(tmp_path / "rows.jsonl", rows)),
        validation_share=0.0,
        batch_size=1,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(list(data.train_dataloader())) == 2
    assert "dropped, text too short: 1" in data.report.to_text()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"document": "a b c d e f"}, "a b c d e f"),
        (
            {"messages": [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d e f"}]},
            "a b c d e f",
        ),
        ({"instruction": "a b", "context": "c d", "response": "e f"}, "a b c d e f"),
    ],
)
def test_texts_of_other_columns_and_of_conversations(row: dict[str, Any], words: str) -> None:
    assert parts(ContinuedTexts("x.jsonl"), row)[0] == words.split()


def test_worked_examples_are_the_first_texts_of_sufficient_length(tmp_path: Path) -> None:
    texts = ["too short", text_of(0, 9), text_of(20, 9), text_of(40, 9), text_of(60, 9)]
    source = ContinuedTexts(write(tmp_path / "rows.jsonl", [{"text": text} for text in texts]), shots=2)
    examples = source.worked_examples()
    assert [message["content"].split("\n")[0] for message in examples[::2]] == texts[1:3]
    assert len(list(source.load())) == 2
    assert (source.messages({"text": texts[3]})[1] or [])[:4] == examples


def test_continued_texts_and_private_documents_are_mixed_in_one_training(tmp_path: Path) -> None:
    facts = [{"document": f"Note {n}.", "question": "Which?", "answer": f"{n}"} for n in range(40)]
    texts = [{"text": text_of(n, 12)} for n in range(40)]
    data = InstructionDataModule(
        Mixture(
            [
                PrivateDocuments(write(tmp_path / "facts.jsonl", facts)),
                ContinuedTexts(write(tmp_path / "texts.jsonl", texts)),
            ],
            [3.0, 1.0],
        ),
        validation_share=0.0,
        batch_size=4,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
    )
    lengths = [len(row) for batch in data.train_dataloader() for row in batch.prompt.receiver.input_ids]
    assert 48 <= len(lengths) <= 56
    assert len(set(lengths)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beginning_words": (0, 4)}, r"`beginning_words` .* 1 <= fewest <= most"),
        ({"continuation_words": (5, 4)}, r"`continuation_words` .* is \(5, 4\)"),
        ({"max_words": 4}, "`max_words` of ContinuedTexts is 4, but .* at least 5"),
        ({"question": "Go on"}, "needs {beginning}"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ContinuedTexts("x.jsonl", **options)
