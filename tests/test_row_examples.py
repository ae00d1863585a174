"""The example rows of the documentation: every file is read by the class or option that the page names for it."""

from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.messages import check_example
from c2c_lightning.data.readers.json_lines import decode
from c2c_lightning.data.sources import (
    GSM8K,
    ContinuedTexts,
    LongBench,
    Messages,
    MultipleChoice,
    OpenHermes,
    PrivateDocuments,
    PromptResponse,
    Source,
)
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.prediction.requests import load_requests
from tests.data.encoders import shared_encoder

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs" / "examples" / "rows"

TRAINING: dict[str, Source] = {
    "messages.jsonl": Messages(str(ROWS / "messages.jsonl")),
    "sharer_messages.jsonl": Messages(str(ROWS / "sharer_messages.jsonl")),
    "sharer_context.jsonl": Messages(str(ROWS / "sharer_context.jsonl")),
    "sharegpt.jsonl": Messages(str(ROWS / "sharegpt.jsonl")),
    "openhermes.jsonl": OpenHermes(str(ROWS / "openhermes.jsonl")),
    "alpaca.jsonl": Messages(str(ROWS / "alpaca.jsonl")),
    "tools.jsonl": Messages(str(ROWS / "tools.jsonl")),
    "prompt_response.jsonl": PromptResponse(str(ROWS / "prompt_response.jsonl"), context="note"),
    "multiple_choice.jsonl": MultipleChoice(str(ROWS / "multiple_choice.jsonl")),
    "gsm8k.jsonl": GSM8K(str(ROWS / "gsm8k.jsonl")),
    "longbench.jsonl": LongBench(str(ROWS / "longbench.jsonl"), private_context=True),
    "private_document.jsonl": PrivateDocuments(str(ROWS / "private_document.jsonl")),
    "text.jsonl": ContinuedTexts(str(ROWS / "text.jsonl")),
}
PRIVATE = {"sharer_messages.jsonl", "sharer_context.jsonl", "prompt_response.jsonl", "longbench.jsonl"}
PRIVATE |= {"private_document.jsonl", "text.jsonl"}
PREDICTION = {"questions.jsonl": ["first", "second"], "alpaca.jsonl": [0, 1], "sharer_context.jsonl": [0]}
EVALUATION = {"multiple_choice.jsonl": "choice", "private_choice.jsonl": "choice", "free_answer.jsonl": "free"}
EVALUATION["private_document.jsonl"] = "document"


def test_every_file_is_tested_and_named_on_the_page() -> None:
    files = {path.name for path in ROWS.iterdir()}
    assert files == {*TRAINING, *PREDICTION, *EVALUATION}
    page = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
    assert not [name for name in files if f"rows/{name}" not in page]


@pytest.mark.parametrize("name", TRAINING)
def test_rows_for_training(name: str, tmp_path: Path) -> None:
    source = TRAINING[name]
    for row in source.load():
        messages, private = source.messages(decode(row))
        check_example(messages)
        assert (private is not None) == (name in PRIVATE)
    data = InstructionDataModule(
        source, encoder=shared_encoder(), cache_dir=str(tmp_path), max_bad_share=0.0, validation_share=0.0, batch_size=1
    )
    batches = list(data.train_dataloader())
    assert len(batches) == len((ROWS / name).read_text().splitlines())
    assert all(batch.supervised.any() for batch in batches)


@pytest.mark.parametrize("name", PREDICTION)
def test_rows_for_predictions(name: str) -> None:
    assert [request.id for request in load_requests(str(ROWS / name))] == PREDICTION[name]


@pytest.mark.parametrize("name", EVALUATION)
def test_rows_for_evaluations(name: str) -> None:
    scoring: dict[str, Any] = {"free_answer.jsonl": "maths", "private_document.jsonl": "squad"}
    task = Task("mine", str(ROWS / name), rows=EVALUATION[name], scoring=scoring.get(name))
    questions = load_questions(resolve(task), None)
    assert len(questions) == len((ROWS / name).read_text().splitlines())
    assert all(question.gold for question in questions)
    assert (questions[0].sharer is not None) == name.startswith("private")
