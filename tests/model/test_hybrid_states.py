"""States of recurrent and convolution layers: with sections, beams, growing chats, batches of rows, and gradients."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.errors import CacheStateError, GenerationError, UnsupportedModelError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.continuation import ignores_states
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.kv.states import LayerState, ModelStates
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.fused_rows import join_rows, row_of
from c2c_lightning.model.load_lm import load_frozen
from tests.hybrids import HYBRIDS, frozen_hybrid, hybrid_model
from tests.model.test_chat_session import TURNS, letters
from tests.model.test_families import frozen
from tests.model.test_hybrids import MODES, SETTINGS, as_receiver, every_hybrid, fused_model
from tests.model.test_prefix_match import counted
from tests.model.test_spans import SECTIONS, examples, together
from tests.tiny import tiny_tokenizer

BY_TOKEN = ("jamba", "zamba")
FEW = ("qwen3_5_text", "falcon_h1", "jamba")


def slow_but(cases: Sequence[Any], fast: Sequence[Any]) -> list[Any]:
    """Cases, all of them slow but the fast ones."""
    marked = [
        (case if isinstance(case, tuple) else (case,), () if case in fast else pytest.mark.slow) for case in cases
    ]
    return [pytest.param(*case, marks=marks) for case, marks in marked]


def with_two_sharers(family: str, **choices: object) -> C2CModel:
    """A hybrid receiver with a hybrid and an ordinary sharer."""
    torch.manual_seed(3)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, **choices)  # type: ignore[arg-type]
    model = C2CModel(frozen_hybrid(family), [frozen_hybrid("qwen3_next", 1), frozen("qwen2", 2)], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def run(lm: PreTrainedModel, ids: Tensor, cache: DynamicCache) -> list[DynamicLayer]:
    """The attention layers of transformers' own cache after more tokens."""
    steps = ids.split(1, 1) if lm.config.model_type in BY_TOKEN else (ids,)
    with torch.no_grad():
        for step in steps:
            # Not all models count the tokens in the cache.
            begin = cache.get_seq_length()
            positions = torch.arange(begin, begin + step.shape[1])[None]
            lm(step, past_key_values=cache, use_cache=True, position_ids=positions)
    return [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]


def entries(layers: list[DynamicLayer]) -> LayerStack:
    return [LayerKV(layer.keys, layer.values) for layer in layers]  # type: ignore[arg-type]


def slow_fused(model: C2CModel, prompt: PromptBatch, sections: list[int]) -> DynamicCache:
    """Section by section, by transformers' own cache: its states stay, its entries are replaced by fused ones."""
    theirs = [
        entries(run(lm.model, tokens.input_ids, DynamicCache(config=lm.model.config)))
        for lm, tokens in zip(model.sharers, prompt.sharers, strict=True)
    ]
    cache, begin, last = DynamicCache(config=model.receiver.model.config), 0, len(sections) - 1
    while begin < last:
        end = begin + 1
        while end < last and sections[end] == sections[begin]:
            end += 1
        layers = run(model.receiver.model, prompt.receiver.input_ids[:, begin:end], cache)
        for number in range(2):
            if sections[begin] >> number & 1:
                token = torch.arange(begin, end)
                reads = [FusedTokens(*(torch.zeros(0, dtype=torch.long),) * 3)] * 2
                source = prompt.sharers[number].index[0, begin:end]
                reads[number] = FusedTokens(torch.zeros_like(token), token, source)
                with torch.no_grad():
                    fused = model.fuser(entries(layers), theirs, FusionStep(begin, end, tuple(reads)))
                for layer, kv in zip(layers, fused, strict=True):
                    layer.keys, layer.values = kv.keys, kv.values
        begin = end
    return cache


def assert_same(one: Tensor, other: Tensor) -> None:
    """Equal but for rounding, which the state layers of random models amplify from section to section."""
    assert (one - other).norm() <= 1e-2 * other.norm()


def assert_same_states(one: ModelStates | None, other: dict[int, LayerState], row: int | None = None) -> None:
    assert one is not None
    assert one.layers.keys() == other.keys()
    for n, layer in one.layers.items():
        for mine, theirs in zip(layer.conv + layer.recurrent, other[n].conv + other[n].recurrent, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                part = mine if row is None else mine[row : row + 1]
                assert_same(part, theirs)


@every_hybrid
def test_sections_are_those_of_a_slow_twin(family: str) -> None:
    if family == "lfm3":
        pytest.skip("transformers' own cache keeps a window only")
    model, prompts = with_two_sharers(family), examples()
    batch = model.prefill(together(prompts))
    for row, (prompt, sections) in enumerate(zip(prompts, SECTIONS, strict=True)):
        cache = slow_fused(model, prompt, sections)
        expected = entries([layer for layer in cache.layers if isinstance(layer, DynamicLayer)])
        for layer, lone in zip(batch.fused_kv, expected, strict=True):
            assert_same(layer.keys[row : row + 1, :, -lone.num_tokens :], lone.keys)
        states = {
            n: LayerState(tuple(layer.conv_states.values()), tuple(layer.recurrent_states.values()))
            for n, layer in enumerate(cache.layers)
            if hasattr(layer, "conv_states")
        }
        assert_same_states(batch.states, states, row)


@pytest.mark.parametrize(
    ("family", "mode"), slow_but([*product(FEW, MODES)], [(FEW[0], "prompt"), (FEW[1], "prefill")])
)
def test_states_follow_the_beams(family: str, mode: str) -> None:
    model, prompt = as_receiver(family, fusion_mode=mode), together(examples())
    prompt = PromptBatch.shared(prompt.receiver.input_ids, prompt.receiver.mask)
    settings = {**SETTINGS, "num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.0}
    out = model.generate(prompt, return_dict_in_generate=True, output_scores=True, **settings)
    answers = out.sequences[:, prompt.num_receiver_tokens :]
    repeated = prompt.select(torch.arange(len(prompt)).repeat_interleave(3))
    with torch.no_grad():
        logits = model(repeated, answers).logits[:, :-1]
    sums = logits.log_softmax(-1).gather(2, answers[..., None]).sum((1, 2))
    torch.testing.assert_close(out.sequences_scores, sums, atol=2e-3, rtol=2e-3)


CHATS = [
    chat for chat in product(FEW, ("receiver", "sharer"), MODES, ("identity", "span")) if chat[2:] != ("decode", "span")
]
FAST_CHATS = [
    ("qwen3_5_text", "receiver", "prefill", "span"),
    ("falcon_h1", "receiver", "prefill", "identity"),
    ("qwen3_5_text", "sharer", "decode", "identity"),
]


@pytest.mark.parametrize(("family", "side", "mode", "alignment"), slow_but(CHATS, FAST_CHATS))
def test_a_chat_from_kept_caches_is_the_chat_computed_anew(family: str, side: str, mode: str, alignment: str) -> None:
    hybrid, other = frozen_hybrid(family), frozen("qwen2", 1)
    pair = (hybrid, other) if side == "receiver" else (other, hybrid)
    model = fused_model(*pair, fusion_mode=mode, token_alignment=alignment)
    session, settings = ChatSession(model), letters(model)
    for turn in TURNS:
        prompt = session.prompt(turn)
        whole = model.generate(prompt, **settings)[0, prompt.num_receiver_tokens :]
        with counted(model.receiver) as columns:
            reply = session.send(turn, **settings)
        assert reply == model.receiver.tokenizer.decode(whole)
    if mode == "prefill":
        # Prompts and answers of earlier turns are not prefilled again.
        assert sum(columns) < prompt.num_receiver_tokens // 2


@pytest.mark.parametrize("family", slow_but(FEW, ["falcon_h1"]))
def test_rows_of_a_batch_keep_their_states(family: str) -> None:
    model = as_receiver(family)
    conversations = [[{"role": "user", "content": "City? " * n}] for n in (2, 9, 4)]
    prompt = model.encode(conversations)
    batch = model.prefill(prompt)
    rows = [row_of(batch, n, lambda p: model.mode.plan(p, model.fuser.config)) for n in range(3)]
    for row, conversation in zip(rows, conversations, strict=True):
        alone = model.prefill(model.encode([conversation]))
        assert alone.states is not None
        assert_same_states(row.states, dict(alone.states.layers))
        longer = model.encode([[*conversation, {"role": "assistant", "content": "B"}, *conversations[0]]])
        continued, whole = model.prefill(longer, prefix=row), model.prefill(longer)
        torch.testing.assert_close(continued.fused_kv[-1].keys, whole.fused_kv[-1].keys, atol=1e-3, rtol=1e-3)
    joined = join_rows(rows, prompt)
    cache = model.mode.generation_cache(model, joined)
    assert torch.equal(model.continue_from(joined, cache, **SETTINGS), model.generate(prompt, **SETTINGS))


@pytest.mark.parametrize("family", slow_but(FEW, ["qwen3_5_text"]))
def test_gradients_cross_sections_and_states(family: str) -> None:
    """States after a span depend on fused entries that are being trained; finite differences know that."""
    torch.manual_seed(3)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0)
    lms = [
        frozen_hybrid(family, dtype=torch.float64),
        load_frozen((hybrid_model("lfm2", 1, torch.float64), tiny_tokenizer())),
    ]
    model = C2CModel(lms[0], [lms[1]] * 2, config).double().eval()
    model.fuser.force_gates(is_open=True)
    weight, step = model.fuser.sharers[0].groups[0].values.projector.output.weight, 1e-3
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    prompt, response = together(examples()), torch.full((3, 3), 9)
    model(prompt, response).loss.backward()
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
            losses.append(model(prompt, response).loss)
            weight -= sign * step * direction
    assert weight.grad is not None
    torch.testing.assert_close(
        (weight.grad * direction).sum(), (losses[0] - losses[1]) / (2 * step), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(("family", "mode"), slow_but([*product(HYBRIDS, MODES)], [(name, "prompt") for name in FEW]))
def test_a_pass_over_one_token_has_gradients(family: str, mode: str) -> None:
    """A response of one token runs the last prompt token alone, for which models have code without gradients."""
    model, prompt = as_receiver(family, fusion_mode=mode), together(examples())
    prompt, ids = PromptBatch.shared(prompt.receiver.input_ids, prompt.receiver.mask), torch.full((3, 2), 9)
    one = TrainingBatch(prompt, ids[:, :1], torch.ones(3, 1).bool())
    two = TrainingBatch(prompt, ids, torch.tensor([[True, False]] * 3))
    parameters = [p for name, p in model.fuser.named_parameters() if not name.endswith("gate.logit")]
    losses = [model.response_loss(batch) for batch in (one, two)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)
    gradients = [torch.autograd.grad(loss, parameters) for loss in losses]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-2)


@pytest.mark.slow
def test_models_that_ignore_states_in_longer_passes_are_found() -> None:
    found = [name for name in HYBRIDS if ignores_states(frozen_hybrid(name).model, frozen_hybrid(name).layout)]
    assert found == list(BY_TOKEN)


def test_candidate_tokens_are_refused() -> None:
    model, prompt = as_receiver("lfm2"), PromptBatch.shared(torch.arange(3, 12)[None])
    with pytest.raises(GenerationError, match=r"`prompt_lookup_num_tokens` .*cannot be rolled back"):
        model.generate(prompt, prompt_lookup_num_tokens=2)
    with pytest.raises(GenerationError, match="states cannot be rolled back"):
        model.fuse(prompt).crop(-1)


def test_a_cache_without_its_states_is_not_continued() -> None:
    model = fused_model(frozen("qwen2", 0), frozen_hybrid("lfm2", 1), fusion_mode="decode")
    prompt = PromptBatch.shared(torch.arange(3, 12)[None])
    edited = [list(kv or ()) for kv in model.prefill_sharers(prompt)]
    with pytest.raises(CacheStateError, match="states of its recurrent and convolution layers are missing"):
        model.generate(prompt, sharer_kv=edited, **SETTINGS)


def test_a_model_with_states_outside_its_cache_is_refused() -> None:
    model = hybrid_model("recurrent_gemma", num_hidden_layers=3, lru_width=32, attention_window_size=8)
    with pytest.raises(UnsupportedModelError, match="keeps the states of its recurrent layers outside of its cache"):
        load_frozen((model, tiny_tokenizer()))


def test_a_model_without_attention_layers_is_refused() -> None:
    model = hybrid_model("lfm2", layer_types=["conv"] * 4, block_auto_adjust_ff_dim=False)
    with pytest.raises(UnsupportedModelError, match="it has no attention layer"):
        load_frozen((model, tiny_tokenizer()))


def test_a_sharer_with_fewer_attention_layers_is_aligned_from_the_last() -> None:
    """One attention layer of the sharer, and three of the receiver: all of them read the same one."""
    model = fused_model(frozen("qwen2", 0), frozen_hybrid("granitemoehybrid", 1))
    assert model.fuser.sharers[0].layer_map == [0, 0, 0]
    assert fused_model(frozen("qwen2", 0), frozen_hybrid("granitemoehybrid", 1), layer_alignment="skip").fuser.sharers[
        0
    ].layer_map == [None, None, 0]
