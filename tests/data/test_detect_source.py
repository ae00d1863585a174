"""The source that fits the columns of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.readers.json_lines import decode
from c2c_lightning.data.sources.detect import detect_source
from c2c_lightning.errors import DataError

CHAT = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]


def write(folder: Path, *rows: Any) -> str:
    """A file of JSON lines; texts are written as they are."""
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"messages": CHAT}, "Messages"),
        ({"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]}, "Messages"),
        ({"instruction": "Hi?", "output": "Yes."}, "Messages"),
        ({"question": "Hi?", "choices": ["Yes", "No"], "answer": 0}, "MultipleChoice"),
        ({"context": "Yes.", "input": "Hi?", "answers": ["Yes."]}, "LongBench"),
        ({"prompt": "Hi?", "response": "Yes."}, "PromptResponse"),
        ({"prompt": "Hi?", "completion": "Yes."}, "PromptResponse"),
        ({"question": "Hi?", "answer": "Yes."}, "PromptResponse"),
    ],
)
def test_the_source_reads_the_rows_that_it_was_chosen_for(row: dict[str, Any], source: str, tmp_path: Path) -> None:
    choice = detect_source(write(tmp_path, row))
    assert choice.to_yaml()["class_path"] == f"c2c_lightning.data.sources.{source}"
    built = choice.build()
    messages, _ = built.messages(decode(next(iter(built.load()))))
    assert "Hi?" in messages[0]["content"]
    assert "Yes" in messages[-1]["content"] or "A" in messages[-1]["content"]


def test_a_broken_row_does_not_hide_the_others(tmp_path: Path) -> None:
    assert detect_source(write(tmp_path, "{broken", {"messages": CHAT})).kind.__name__ == "Messages"


def test_rows_of_no_known_shape_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns `frage`.*`messages`"):
        detect_source(write(tmp_path, {"frage": "Hi?"}))


def test_a_file_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        detect_source(write(tmp_path, "{broken", "{too"))
