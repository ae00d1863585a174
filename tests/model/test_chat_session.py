"""Growing conversations: every turn as if all were read whole, and only what is new is run."""

from typing import Any

import pytest
import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_prefix_match import counted
from tests.tiny import tiny_pair

TURNS = ["What is the capital of Arlen?", "Why does the river bend?", "Name a city."]
LETTERS = "BDFGHJKL"


def build(alignment: str, receiver: str = "qwen3", is_open: bool = True, **choices: Any) -> C2CModel:
    """A receiver with two sharers; one reads the receiver's tokens with `identity`."""
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, token_alignment=alignment, **choices)
    style = "chatml" if alignment == "identity" else "header"
    sharers = [load_frozen(tiny_pair("llama", 1, style)), load_frozen(tiny_pair("qwen2", 2, style))]
    torch.manual_seed(3)
    model = C2CModel(load_frozen(tiny_pair(receiver, 0)), sharers, config).eval()
    model.fuser.force_gates(is_open=is_open)
    return model


def letters(model: C2CModel) -> dict[str, Any]:
    """Settings under which the receiver writes letters that its tokenizer reads back one by one."""
    allowed = model.receiver.tokenizer.convert_tokens_to_ids(list(LETTERS))
    return {
        "max_new_tokens": 6,
        "do_sample": False,
        "eos_token_id": None,
        "prefix_allowed_tokens_fn": lambda row, ids: allowed,
    }


CASES = [
    ("identity", {}),
    ("identity", {"span_order": "one_pass"}),
    ("identity", {"fusion_mode": "prompt"}),
    ("identity", {"fusion_mode": "decode"}),
    ("span", {}),
    ("span", {"span_order": "one_pass"}),
    ("longest", {}),
]


@pytest.mark.parametrize("receiver", ["qwen3", pytest.param("gemma3", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("alignment", "choices"), CASES, ids=[f"{a} {' '.join(c.values())}" for a, c in CASES])
def test_every_turn_is_as_if_all_were_read_anew(receiver: str, alignment: str, choices: dict[str, str]) -> None:
    model = build(alignment, receiver, **choices)
    session, settings = ChatSession(model), letters(model)
    for turn in TURNS:
        whole, messages = session.prompt(turn), session.messages
        whole = model.generate(whole, **settings)[0, whole.num_receiver_tokens :]
        asked, reply = session.peek(turn, **settings), session.send(turn, **settings)
        assert asked == reply == model.receiver.tokenizer.decode(whole)
        if (alignment, choices) != ("identity", {}):
            # Then it is the conversation as it is always encoded.
            assert reply == model.chat([[*messages, {"role": "user", "content": turn}]], **settings)[0]
    assert [message["role"] for message in session.messages] == ["user", "assistant"] * len(TURNS)


@pytest.mark.parametrize("alignment", ["identity", "span"])
def test_each_turn_runs_its_new_tokens_only(alignment: str) -> None:
    model = build(alignment)
    session, settings = ChatSession(model), letters(model)
    first = session.prompt(TURNS[0])
    session.send(TURNS[0], **settings)
    second = session.prompt(TURNS[1])
    with counted(model.receiver) as receiver, counted(model.sharers[0]) as sharer:
        session.send(TURNS[1], **settings)
    # The first prompt and its answer but for the answer's last token lie in the cache.
    assert sum(receiver) == second.num_receiver_tokens - 1 - (first.num_receiver_tokens + 6 - 1)
    assert sum(sharer) == second.plan.num_read_tokens[0] - first.plan.num_read_tokens[0]


def test_an_identical_pair_fuses_once_a_turn() -> None:
    model = build("identity")
    session, ends = ChatSession(model), []
    for turn in TURNS:
        prompt = session.prompt(turn)
        ends.append(prompt.num_receiver_tokens - 1)
        assert [fusion.end for fusion in prompt.fusion_plan] == ends
        session.send(turn, **letters(model))


def test_closed_gates_are_the_bare_receivers_chat() -> None:
    model = build("identity", is_open=False)
    session, tokenizer = ChatSession(model), model.receiver.tokenizer
    for turn in TURNS:
        ids = session.prompt(turn).receiver.input_ids
        own = model.receiver.model.generate(ids, pad_token_id=0, **letters(model))
        assert session.send(turn, **letters(model)) == tokenizer.decode(own[0, ids.shape[1] :])


@pytest.mark.parametrize(
    "kind",
    [
        {"num_beams": 3},
        {"num_return_sequences": 2, "do_sample": True},
        {"prompt_lookup_num_tokens": 2},
        {"return_dict_in_generate": True},
    ],
    ids=lambda kind: next(iter(kind)),
)
def test_any_way_to_answer_can_be_gone_on_from(kind: dict[str, Any]) -> None:
    model = build("identity")
    session, settings = ChatSession(model), letters(model)
    session.send(TURNS[0], **{**settings, **kind})
    prompt = session.prompt(TURNS[1])
    whole = model.generate(prompt, **settings)[0, prompt.num_receiver_tokens :]
    assert session.send(TURNS[1], **settings) == model.receiver.tokenizer.decode(whole)


def test_answers_that_are_written_otherwise_are_read_again() -> None:
    """Any bytes at all: most answers do not come back from their text token by token."""
    model = build("identity")
    session, settings = ChatSession(model), {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    for turn in TURNS:
        prompt = session.prompt(turn)
        whole = model.generate(prompt, **settings)[0, prompt.num_receiver_tokens :]
        assert (
            session.send(turn, **settings) == model.receiver.tokenizer.decode(whole, skip_special_tokens=True).strip()
        )


def test_a_failed_turn_leaves_no_trace() -> None:
    model = build("identity")
    session = ChatSession(model, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "B"}])
    with pytest.raises(ValueError, match="temperature"):  # transformers' own message
        session.send(TURNS[0], do_sample=True, temperature=-1.0)
    assert len(session.messages) == 2
    assert session.cached is None
