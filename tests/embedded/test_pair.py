"""The embedded models have the metrics of their README."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from c2c_lightning import embedded
from c2c_lightning.errors import ModelLoadError
from tools.embedded_world.metrics import exact_replies, probe_accuracy, value_probabilities
from tools.embedded_world.rows import write_rows
from tools.embedded_world.training_examples import ask, ask_after_note, ask_for_sentence
from tools.embedded_world.world import THIRDS, VALUES, Fact, Third, make_world, sentence_request

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
SIZE_LIMIT = 5_000_000  # bytes
WORLD = make_world()
SHARERS_OF_HALVES = (("sharer_first_half", "first"), ("sharer_second_half", "second"))


def load(name: str) -> Loaded:
    directory = embedded.path(name)
    return AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def receiver() -> Loaded:
    return load("receiver")


@pytest.fixture(scope="module")
def sharer() -> Loaded:
    return load("sharer")


def sample(facts: tuple[Fact, ...], step: int = 5) -> list[Fact]:
    return list(facts[::step])


def replies(loaded: Loaded, conversations: list[list[dict[str, str]]]) -> list[str]:
    model, tokenizer = loaded
    prompts = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        ids = model.generate(**prompts)
    return tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("name", embedded.names())
def test_model_is_small_and_loads_in_single_precision(name: str) -> None:
    assert (embedded.path(name) / "model.safetensors").stat().st_size < SIZE_LIMIT
    assert load(name)[0].dtype == torch.float32


def test_unknown_name_is_a_named_error() -> None:
    with pytest.raises(ModelLoadError, match="receiver, sharer"):
        embedded.path("teacher")
    with pytest.raises(ModelLoadError, match=r"train_chat\.jsonl"):
        embedded.facts("none.jsonl")


def test_sharer_knows_the_facts(sharer: Loaded) -> None:
    facts = sample(WORLD.facts)
    assert exact_replies(*sharer, [ask(fact) for fact in facts]) >= 0.99
    assert exact_replies(*sharer, [ask_for_sentence(fact) for fact in facts]) >= 0.99


def test_sharer_has_looked_the_fact_up_by_the_end_of_the_question(sharer: Loaded) -> None:
    train, heldout = ([(fact, ask(fact)) for fact in WORLD.split(split)] for split in ("train", "heldout"))
    assert probe_accuracy(*sharer, train, heldout) >= 0.95


def test_sharer_reads_a_note(sharer: Loaded) -> None:
    strangers = [Fact(f"Qu{fact.entity.lower()}", fact.relation, fact.value, "train", "first") for fact in WORLD.facts]
    assert exact_replies(*sharer, [ask_after_note([fact]) for fact in strangers[::16]]) >= 0.95


def test_receiver_knows_the_words_and_no_fact(receiver: Loaded) -> None:
    facts = sample(WORLD.facts, step=3)
    assert exact_replies(*receiver, [ask(fact) for fact in facts]) < 0.17
    for relation in VALUES:
        examples = [ask(fact) for fact in facts if fact.relation == relation]
        probabilities = value_probabilities(*receiver, examples, relation)
        assert probabilities.sum(-1).mean() > 0.95
        assert probabilities.mean(0).max() < 0.25


def test_text_to_text(receiver: Loaded, sharer: Loaded) -> None:
    facts = sample(WORLD.split("heldout"), step=4)
    requests = [{"role": "user", "content": sentence_request(fact.entity, fact.relation)} for fact in facts]
    sentences = replies(sharer, [[request] for request in requests])
    answers = replies(
        receiver,
        [
            [request, {"role": "assistant", "content": sentence}, {"role": "user", "content": fact.question}]
            for request, sentence, fact in zip(requests, sentences, facts, strict=True)
        ],
    )
    right = [answer == fact.answer for answer, fact in zip(answers, facts, strict=True)]
    assert sum(right) / len(right) >= 0.95


@pytest.mark.parametrize(("name", "half"), SHARERS_OF_HALVES)
def test_half_sharer_knows_its_half_alone(name: str, half: str) -> None:
    loaded = load(name)
    known = [ask(fact) for fact in sample(WORLD.facts) if fact.half == half]
    unknown = [ask(fact) for fact in sample(WORLD.facts) if fact.half != half]
    assert exact_replies(*loaded, known) >= 0.99
    assert exact_replies(*loaded, unknown) < 0.25


@pytest.mark.parametrize(("name", "fraction"), [("sharer_first_quarter", 0.25), ("sharer_first_three_quarters", 0.75)])
def test_sharer_of_quarters_knows_little_else(name: str, fraction: float) -> None:
    loaded, known = load(name), set(WORLD.first(fraction))
    facts = sample(WORLD.facts)
    assert exact_replies(*loaded, [ask(fact) for fact in facts if fact in known]) >= 0.99
    assert exact_replies(*loaded, [ask(fact) for fact in facts if fact not in known]) < 0.3


@pytest.mark.parametrize("third", THIRDS)
def test_peer_knows_its_third_alone(third: Third) -> None:
    loaded, known = load(f"peer_{third}_third"), set(WORLD.third(third))
    facts = sample(WORLD.facts)
    assert exact_replies(*loaded, [ask(fact) for fact in facts if fact in known]) >= 0.98
    assert exact_replies(*loaded, [ask(fact) for fact in facts if fact not in known]) < 0.25


def test_rows_are_those_of_the_world(tmp_path: Path) -> None:
    write_rows(WORLD, tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_text() == embedded.facts(file.name).read_text()
