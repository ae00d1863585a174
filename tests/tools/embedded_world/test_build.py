"""The builder of the embedded models, for a few steps."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.embedded_world import build, train_models
from tools.embedded_world.acceptance import SHARER_BOUNDS, ReceiverEvaluation, SharerEvaluation
from tools.embedded_world.tokenization import build_sharer_tokenizer
from tools.embedded_world.training import IGNORED, Recipe, encode_examples
from tools.embedded_world.training_examples import ask, ask_for_sentence
from tools.embedded_world.world import make_world

SHORT = Recipe(batch_size=4, max_steps=2, cooldown_steps=1, check_every=1000, lookup_weight=0.5, lookup_layers=(3, 6))


@pytest.fixture
def short_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "make_world", lambda seed: make_world(seed, num_entities=20))
    monkeypatch.setattr(train_models, "ReceiverEvaluation", partial(ReceiverEvaluation, num_questions=10))
    monkeypatch.setattr(train_models, "SharerEvaluation", partial(SharerEvaluation, num_notes=10))
    monkeypatch.setattr(train_models, "RECEIVER_RECIPE", dataclasses.replace(SHORT, lookup_weight=0.0))
    monkeypatch.setattr(train_models, "SHARER_RECIPE", SHORT)
    monkeypatch.setattr(train_models, "QUARTERS_RECIPE", SHORT)


@pytest.mark.usefixtures("short_recipes")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--only", "receiver"], "receiver"),
        (["--only", "sharer"], "sharer"),
        (["--only", "sharer", "--facts", "first-half"], "sharer_first_half"),
        (["--only", "sharer", "--facts", "first-three-quarters"], "sharer_first_three_quarters"),
    ],
)
def test_script_writes_a_model(
    arguments: list[str], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build.main(["--out", str(tmp_path), *arguments])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert "misses its acceptance bounds" in caplog.text


def test_script_writes_rows(tmp_path: Path) -> None:
    build.main(["--out", str(tmp_path), "--only", "facts"])
    rows = [json.loads(line) for line in (tmp_path / "facts" / "private_context_heldout.jsonl").open()]
    for row in rows:
        note, request = row["sharer_messages"]
        assert request == row["messages"][0]
        assert f"is {row['messages'][1]['content']}" in note["content"]
        assert row["choices"][row["answer"]] + "." == row["messages"][1]["content"]


def test_encoded_examples_mark_reply_value_and_end_of_question() -> None:
    tokenizer = build_sharer_tokenizer()
    fact = make_world().facts[0]
    batch = encode_examples(tokenizer, [ask(fact), ask_for_sentence(fact)])
    for row, reply in enumerate((fact.answer, fact.statement)):
        labels = batch.labels[row]
        assert tokenizer.decode(labels[labels != IGNORED]) == reply + "</s>"
        assert tokenizer.decode(batch.input_ids[row, batch.last_message_token[row]]) == "?"
        assert tokenizer.decode(batch.value_ids[row]) == fact.value


def test_all_metrics_must_be_within_the_bounds() -> None:
    good = dict.fromkeys(SHARER_BOUNDS.at_least, 1.0)
    assert SHARER_BOUNDS.is_met(good)
    assert not SHARER_BOUNDS.is_met(good | {"probe": 0.9})
    assert SHARER_BOUNDS.is_met(good | {"probe": 0.9}, slack=0.06)
