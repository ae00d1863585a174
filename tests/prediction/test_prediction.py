"""`lightning predict`: answers to the rows of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import DataError, GenerationError, PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.prediction.prediction_module import ConversationDataModule, PredictionModule, write_lines
from c2c_lightning.prediction.requests import load_requests
from tests.training.runs import SMALL, trainer

SETTINGS = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(scope="module")
def fuser(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    receiver, sharer = load_frozen(str(models / "receiver")), load_frozen(str(models / "sharer"))
    return C2CModel(receiver, [sharer], FuserConfig(**SMALL)).save_pretrained(tmp_path_factory.mktemp("fuser") / "f")


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


ROWS: list[Any] = [
    {"messages": user("Why?")},
    {
        "id": "second",
        "messages": [*user("What is the capital of a very long name?"), {"role": "assistant", "content": "X"}],
    },
    {"question": "Where?", "choices": ["a", "b"]},
    {"messages": user("Who is it?"), "sharer_messages": user("It is Ann. Who is it?")},
    {"messages": user("And now, after all that came before?")},
]


def predict(
    fuser: Path, folder: Path, path: str, settings: dict[str, Any] = SETTINGS, **choices: Any
) -> list[dict[str, Any]]:
    output = folder / "out" / "answers.jsonl"
    made = PredictionModule(str(fuser), str(output), generate=settings, **choices)
    trainer(folder, -1).predict(made, ConversationDataModule(path, batch_size=2))
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_one_line_for_each_row_in_order(fuser: Path, tmp_path: Path) -> None:
    lines = predict(fuser, tmp_path, write(tmp_path / "rows.jsonl", ROWS))
    assert [line["id"] for line in lines] == [0, "second", 2, 3, 4]
    assert lines[1]["messages"] == ROWS[1]["messages"][:1]
    assert [line.get("reference") for line in lines] == [None, "X", None, None, None]
    assert lines[2]["messages"] == user("Where?")
    assert lines[3]["sharer_messages"] == ROWS[3]["sharer_messages"]
    model = C2CModel.from_pretrained(fuser)
    for line in lines:
        own = None if "sharer_messages" not in line else [line["sharer_messages"]]
        assert line["answer"] == model.chat([line["messages"]], own, **SETTINGS)[0]


def test_every_row_is_somebodys(tmp_path: Path) -> None:
    data = ConversationDataModule(write(tmp_path / "rows.jsonl", ROWS), batch_size=2)
    data.setup("predict")
    indices = []
    for rank in range(2):
        data.trainer = type("Process", (), {"global_rank": rank, "world_size": 2})()
        indices += [row.index for batch in data.predict_dataloader() for row in batch]
    assert sorted(indices) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"messages": [', "not JSON"),
        ('{"text": "x"}', "has no `messages`"),
        ('{"messages": []}', "at least one message"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "nothing to answer"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ("[1, 2]", "must be a JSON object"),
    ],
)
def test_a_malformed_row_is_named(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + f"\n\n{row}\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl:3: .*{message}"):
        load_requests(str(path))


def test_nothing_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n")
    with pytest.raises(DataError, match="rows"):
        load_requests(str(path))
    with pytest.raises(DataError, match=r"no data at .*none\.jsonl"):
        load_requests(str(tmp_path / "none.jsonl"))


def test_only_the_first_rows(tmp_path: Path) -> None:
    assert len(load_requests(write(tmp_path / "rows.jsonl", ROWS), max_rows=2)) == 2


def test_a_prompt_that_is_too_long_is_named_and_nothing_is_written(fuser: Path, tmp_path: Path) -> None:
    rows = [*ROWS, {"messages": user("river " * 600)}]
    with pytest.raises(PromptError, match=r"rows\.jsonl:6 cannot be answered"):
        predict(fuser, tmp_path, write(tmp_path / "rows.jsonl", rows))
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_lines(tmp_path / "file" / "answers.jsonl", [{}])


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]},
        {"instruction": "Where?", "input": "", "output": "Here."},
        {"instruction": "Where?", "context": "", "response": "Here.", "category": "open_qa"},
        {"messages": [*user("Where?"), {"role": "assistant", "content": "Here."}]},
    ],
    ids=["ShareGPT", "Alpaca", "Dolly", "messages"],
)
def test_rows_of_every_shape_that_fit_reads(row: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row])
    (request,) = load_requests(path)
    assert (request.messages, request.reference) == (user("Where?"), "Here.")
    assert Messages(path).messages(row)[0] == [*user("Where?"), {"role": "assistant", "content": "Here."}]


def test_the_context_of_a_dolly_row_is_part_of_the_question(tmp_path: Path) -> None:
    row = {"instruction": "Who wrote it?", "context": "Ada wrote it.", "response": "Ada."}
    (request,) = load_requests(write(tmp_path / "rows.jsonl", [row]))
    assert request.messages == user("Who wrote it?\n\nAda wrote it.")
    with pytest.raises(DataError, match="both `input` and `context`"):
        load_requests(write(tmp_path / "both.jsonl", [{**row, "input": "x"}]))


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"conversations": [{"from": "human", "value": "x"}], "system": "s"}, ["system", "user"]),
        ({"instruction": "x", "system": "s", "history": [["q", "a"]]}, ["system", "user", "assistant", "user"]),
    ],
    ids=["ShareGPT", "Alpaca"],
)
def test_system_text_and_history_of_a_row_are_messages(row: Any, roles: list[str], tmp_path: Path) -> None:
    (request,) = load_requests(write(tmp_path / "rows.jsonl", [row]))
    assert [message["role"] for message in request.messages] == roles


def test_a_multiple_choice_row_names_its_source() -> None:
    with pytest.raises(DataError, match="MultipleChoice"):
        Messages("x").messages({"question": "Where?", "choices": ["a"], "answer": 0})


@pytest.mark.parametrize(
    ("generate", "count"),
    [
        ({"num_return_sequences": 2, "do_sample": True}, 2),
        ({"num_return_sequences": 2, "num_beams": 3}, 2),
        ({"return_dict_in_generate": True}, 1),
        ({"stop_strings": ["a", "e"]}, 1),
        ({"temperature": 0}, 1),
    ],
    ids=["sampled", "beams", "dictionary", "stop strings", "temperature 0"],
)
def test_every_answer_of_a_row_is_in_its_line(
    generate: dict[str, Any], count: int, fuser: Path, tmp_path: Path
) -> None:
    lines = predict(fuser, tmp_path, write(tmp_path / "rows.jsonl", ROWS), {**SETTINGS, **generate})
    assert len(lines) == len(ROWS)
    for line in lines:
        assert len(line.get("answers", [line["answer"]])) == count
        assert line["answer"] == line.get("answers", [line["answer"]])[0]


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({"max_new_token": 4}, "Did you mean `max_new_tokens`"),
        ({"do_sample": True, "temperature": 0}, "greedy"),
        ({"repetition_penalty": -1.0}, "penalty"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"cache_implementation": "offloaded"}, "cache_implementation"),
        ({"use_cache": False}, "use_cache"),
    ],
)
def test_a_wrong_setting_is_found_before_the_first_answer(
    generate: dict[str, Any], message: str, fuser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(C2CModel, "chat", lambda *args, **kwargs: pytest.fail("an answer was generated"))
    with pytest.raises(GenerationError, match=message):
        predict(fuser, tmp_path, write(tmp_path / "rows.jsonl", ROWS), {"do_sample": False, **generate})


@pytest.mark.parametrize("generate", [{"max_length": 2, "max_new_tokens": None}, {"prompt_lookup_num_tokens": 2}])
def test_a_setting_that_does_not_fit_some_prompts_is_a_named_error(
    generate: dict[str, Any], fuser: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match=r"rows\.jsonl.*cannot be answered: transformers refuses"):
        predict(fuser, tmp_path, write(tmp_path / "rows.jsonl", ROWS), {"do_sample": False, **generate})
