"""Whatever transformers' `generate` offers, on a fused cache: with closed gates the receiver's own, token for token."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, TextStreamer
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator
from transformers.utils import logging

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_families import LENGTHS, alone, prompts
from tests.tiny import tiny_pair

PAIRS = [
    ("qwen3", "llama"),
    pytest.param("gemma3", "qwen2", marks=pytest.mark.slow),
    pytest.param("mistral", "gemma3", marks=pytest.mark.slow),
]
NEW = 8
COMMON = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
SAMPLED = {**COMMON, "do_sample": True, "temperature": 1.3, "top_k": 30}

pairs = pytest.mark.parametrize(("receiver", "sharer"), PAIRS)
modes = pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])


class AfterToken(StoppingCriteria):
    """Ends a row after one of some tokens."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = torch.tensor(tokens)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.isin(input_ids[:, -1], self.tokens)


def count_to(end: int) -> list[int]:
    return list(range(3, end))


DETERMINISTIC: dict[str, dict[str, Any]] = {
    "greedy": {},
    "until its end token": {"eos_token_id": count_to(40)},
    "at least some tokens": {"eos_token_id": count_to(150), "min_new_tokens": 3},
    "beams": {"num_beams": 3},
    "beams, several answers": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    "repetition penalty": {"repetition_penalty": 3.0},
    "no n-gram twice": {"no_repeat_ngram_size": 1},
    "banned words": {"bad_words_ids": [[token] for token in range(100, 200)]},
    "biased words": {"sequence_bias": [[[token], 10.0] for token in range(3, 30)]},
    # Without any end token transformers lets rows that are done write on until all are.
    "stopping criteria": {"stopping_criteria": [AfterToken(count_to(150))], "eos_token_id": 319},
    "stop strings": {"stop_strings": ["e", "a", "!", "t"], "eos_token_id": 319},
    "length of the whole": {"max_new_tokens": None, "max_length": max(LENGTHS) + 3},
    "chunked prefill": {"prefill_chunk_size": 2},
    "guidance": {"guidance_scale": 1.5},
}
SAMPLING: dict[str, dict[str, Any]] = {
    "sampling": {},
    "several samples": {"num_return_sequences": 3},
    "sampled beams": {"num_beams": 2},
    "nucleus": {"top_p": 0.8, "min_p": 0.01},
}


@cache
def frozen(family: str, seed: int) -> FrozenLM:
    return load_frozen(tiny_pair(family, seed))


def build(receiver: str, sharer: str, mode: str, is_open: bool) -> C2CModel:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode)
    torch.manual_seed(3)
    model = C2CModel(frozen(receiver, 0), [frozen(sharer, 1)], config).eval()
    model.fuser.force_gates(is_open=is_open)
    for name, parameter in model.fuser.named_parameters():
        if "projector.output" in name:
            parameter.data *= 4  # loud enough to change answers of three tokens
    return model


def own(model: C2CModel, prompt: PromptBatch, **settings: Any) -> Any:
    """What the receiver's own `generate` gives."""
    torch.manual_seed(11)
    tokens = prompt.receiver
    return model.receiver.model.generate(tokens.input_ids, attention_mask=tokens.mask, **complete(model, settings))


def fused(model: C2CModel, prompt: PromptBatch, seed: int = 11, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return model.generate(prompt, **complete(model, settings))


def complete(model: C2CModel, settings: dict[str, Any]) -> dict[str, Any]:
    if "stop_strings" in settings:
        settings = {**settings, "tokenizer": model.receiver.tokenizer}
    return {"pad_token_id": 0, **settings}


@pytest.mark.parametrize("case", DETERMINISTIC)
@modes
@pairs
def test_closed_gates_are_the_receivers_own(receiver: str, sharer: str, mode: str, case: str) -> None:
    model, prompt, settings = build(receiver, sharer, mode, False), prompts(), {**COMMON, **DETERMINISTIC[case]}
    expected = own(model, prompt, **settings)
    assert torch.equal(fused(model, prompt, **settings), expected)
    if case != "chunked prefill":
        # Otherwise the setting does nothing here, and nothing is shown.
        assert case == "greedy" or not torch.equal(own(model, prompt, **COMMON), expected)


def test_penalties_see_the_whole_prompt() -> None:
    """Not only the last token, which alone is run on the fused cache."""
    model, prompt = build("qwen3", "llama", "prefill", False), prompts()
    settings = {**COMMON, **DETERMINISTIC["repetition penalty"]}
    expected = own(model, prompt, **settings)
    last, mask, cache = prompt.receiver.input_ids[:, -1:], prompt.receiver.mask, model.fuse(prompt)
    blind = model.receiver.model.generate(last, attention_mask=mask, past_key_values=cache, **complete(model, settings))
    assert not torch.equal(blind[:, 1:], expected[:, prompt.num_receiver_tokens :])
    assert torch.equal(fused(model, prompt, **settings), expected)


@pytest.mark.parametrize("case", SAMPLING)
@modes
@pairs
def test_samples_are_the_receivers_own_and_follow_the_seed(receiver: str, sharer: str, mode: str, case: str) -> None:
    model, prompt, settings = build(receiver, sharer, mode, False), prompts(), {**SAMPLED, **SAMPLING[case]}
    assert torch.equal(fused(model, prompt, **settings), own(model, prompt, **settings))
    model.fuser.force_gates(is_open=True)
    first = fused(model, prompt, **settings)
    assert torch.equal(fused(model, prompt, **settings), first)
    assert not torch.equal(fused(model, prompt, seed=12, **settings), first)


# A ban of single tokens counts padding as a part of the prompt, in the receiver's own `generate` too.
@pytest.mark.parametrize("case", [case for case in DETERMINISTIC if case != "no n-gram twice"])
@modes
@pairs
def test_open_gates_alone_as_in_a_padded_batch(receiver: str, sharer: str, mode: str, case: str) -> None:
    model, prompt, settings = build(receiver, sharer, mode, True), prompts(), {**COMMON, **DETERMINISTIC[case]}
    together, width = fused(model, prompt, **settings), prompt.num_receiver_tokens
    answers, expected = together[:, width:], own(model, prompt, **settings)[:, width:]
    assert not torch.equal(answers, expected)
    count = len(answers) // len(prompt)
    for row in range(len(prompt)):
        single = alone(prompt, row)
        # `max_length` counts padding: alone a row may write as many more.
        shorter = {"max_length": single.num_receiver_tokens + 3} if "max_length" in settings else {}
        lone = fused(model, single, **{**settings, **shorter})[:, single.num_receiver_tokens :]
        padded = torch.nn.functional.pad(lone, (0, answers.shape[1] - lone.shape[1]))
        assert torch.equal(answers[row * count : (row + 1) * count], padded)


@modes
@pairs
def test_details_of_a_generation(receiver: str, sharer: str, mode: str) -> None:
    model, prompt = build(receiver, sharer, mode, False), prompts()
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    for kind in ({}, {"num_beams": 3, "num_return_sequences": 2}):
        settings = {**COMMON, **wanted, **kind}
        mine, theirs = fused(model, prompt, **settings), own(model, prompt, **settings)
        assert torch.equal(mine.sequences, theirs.sequences)
        assert len(mine.scores) == len(mine.logits) == NEW
        for name in ("scores", "logits"):
            # The prompt's last token is run by itself here, and with the prompt there.
            torch.testing.assert_close(
                torch.stack(getattr(mine, name)), torch.stack(getattr(theirs, name)), atol=1e-3, rtol=1e-3
            )
    torch.testing.assert_close(mine.sequences_scores, theirs.sequences_scores, atol=1e-4, rtol=1e-4)


@modes
def test_open_scores_are_those_of_a_teacher_forced_pass(mode: str) -> None:
    """Step by step with beams, whose rows change places: the scores say which answer was really followed."""
    model, prompt = build("qwen3", "llama", mode, True), prompts()
    settings = {**COMMON, "num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.0}
    out = fused(model, prompt, return_dict_in_generate=True, output_scores=True, **settings)
    answers = out.sequences[:, prompt.num_receiver_tokens :]
    repeated = prompt.select([row for row in range(len(prompt)) for _ in range(3)])
    with torch.no_grad():
        logits = model(repeated, answers).logits[:, :-1]
    sums = logits.log_softmax(-1).gather(2, answers[..., None]).sum((1, 2))
    torch.testing.assert_close(out.sequences_scores, sums, atol=1e-3, rtol=1e-3)


class Collecting(TextStreamer):
    """Keeps what is streamed, as ids and as text."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.ids: list[int] = []
        self.text = ""

    def put(self, value: Tensor) -> None:
        self.ids += value.flatten().tolist()
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text


@pytest.mark.parametrize("extra", [{}, {"prompt_lookup_num_tokens": 2}], ids=["greedy", "prompt lookup"])
@modes
def test_streamed_words_are_the_answer(mode: str, extra: dict[str, Any]) -> None:
    model, prompt = build("qwen3", "llama", mode, True), prompts().select([0])
    streamer = Collecting(model.receiver.tokenizer)
    ids = fused(model, prompt, streamer=streamer, **COMMON, **extra)
    assert streamer.ids == ids[0].tolist()
    assert streamer.text == model.receiver.tokenizer.decode(ids[0, prompt.num_receiver_tokens :])


def repeating(prompt: PromptBatch) -> PromptBatch:
    """A prompt that says everything twice, so that lookups find something."""
    ids = prompt.receiver.input_ids[:1, -9:]
    return PromptBatch.shared(torch.cat([ids, ids], 1))


@pytest.fixture
def _no_announcements() -> Iterator[None]:
    """Transformers' own call of an assistant makes it announce a removal."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


@pytest.mark.usefixtures("_no_announcements")
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@modes
@pairs
def test_assisted_decoding_is_exact(receiver: str, sharer: str, mode: str, is_open: bool) -> None:
    """Drafts of every quality: none accepted, some, and all of them (the assistant is the receiver itself)."""
    model, prompt = build(receiver, sharer, mode, is_open), repeating(prompts())
    plain = fused(model, prompt, **COMMON)
    assert is_open or torch.equal(plain, own(model, prompt, **COMMON))
    assert torch.equal(fused(model, prompt, prompt_lookup_num_tokens=3, **COMMON), plain)
    for assistant in (frozen(receiver, 5).model, model.receiver.model):
        assert torch.equal(fused(model, prompt, assistant_model=assistant, **COMMON), plain)


@modes
def test_assisted_decoding_with_all_else(mode: str) -> None:
    model, prompt = build("qwen3", "llama", mode, True), repeating(prompts())
    settings = {**COMMON, "repetition_penalty": 1.5, "return_dict_in_generate": True, "output_scores": True}
    plain = fused(model, prompt, **settings)
    looked_up = fused(model, prompt, prompt_lookup_num_tokens=3, **settings)
    assert torch.equal(looked_up.sequences, plain.sequences)
    torch.testing.assert_close(torch.stack(looked_up.scores), torch.stack(plain.scores), atol=1e-3, rtol=1e-3)
    short = {**COMMON, "max_new_tokens": None, "max_length": prompt.num_receiver_tokens + 3}
    assert fused(model, prompt, prompt_lookup_num_tokens=3, **short).shape[1] == prompt.num_receiver_tokens + 3


def test_prompt_lookup_looks_into_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the last token, which alone is run on the fused cache."""
    model, prompt = build("qwen3", "llama", "prefill", False), repeating(prompts())
    seen = []

    def draft(self: Any, input_ids: Tensor) -> tuple[Tensor, None]:
        seen.append(input_ids)
        return input_ids, None

    monkeypatch.setattr(PromptLookupCandidateGenerator, "get_candidates", draft)
    fused(model, prompt, prompt_lookup_num_tokens=3, **COMMON)
    assert torch.equal(seen[0], prompt.receiver.input_ids)


@modes
def test_prompts_of_one_token(mode: str) -> None:
    """Nothing is before the last prompt token: an empty cache is gone on from."""
    model, prompt = build("qwen3", "llama", mode, False), PromptBatch.shared(torch.tensor([[7], [9]]))
    for settings in (COMMON, {**COMMON, "num_beams": 2}):
        assert torch.equal(fused(model, prompt, **settings), own(model, prompt, **settings))
    assert torch.equal(
        fused(model, prompt.select([0]), prompt_lookup_num_tokens=2, **COMMON), own(model, prompt.select([0]), **COMMON)
    )


def test_settings_from_a_generation_config() -> None:
    """From the call, and from the model's own: beams and padding are found in either."""
    model, prompt = build("qwen3", "llama", "prefill", False), prompts()
    given = GenerationConfig(max_new_tokens=NEW, do_sample=False, num_beams=3, num_return_sequences=2)
    tokens = prompt.receiver
    expected = model.receiver.model.generate(
        tokens.input_ids, attention_mask=tokens.mask, max_new_tokens=NEW, num_beams=3, num_return_sequences=2
    )
    assert torch.equal(model.generate(prompt, generation_config=given), expected)
    assert given.pad_token_id is None
    defaults = model.receiver.model.generation_config
    defaults.num_beams, defaults.num_return_sequences = 3, 2
    try:
        assert torch.equal(model.generate(prompt, max_new_tokens=NEW), expected)
        partial = GenerationConfig(max_new_tokens=NEW)
        assert torch.equal(model.generate(prompt, generation_config=partial), expected)
    finally:
        defaults.num_beams, defaults.num_return_sequences = None, None


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"use_cache": False}, "use_cache"),
        ({"use_mtp": True}, "hidden states"),
        ({"cache_implementation": "static"}, "cache_implementation"),
    ],
)
def test_what_cannot_be_followed_is_refused(settings: dict[str, Any], match: str) -> None:
    model, prompt = build("qwen3", "llama", "prefill", True), prompts()
    with pytest.raises(GenerationError, match=match):
        model.generate(prompt, **COMMON, **settings)
