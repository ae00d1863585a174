"""Several spans: against a slow twin that follows the released semantics section by section, one example at a time."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.errors import PairMismatchError, PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

# For each prompt and token the sharers that it reads, as a bit set; a new section begins where that changes.
SECTIONS = (
    [0, 1, 1, 1, 0, 0, 1, 1, 0, 3, 3, 0],
    [1, 1, 2, 2, 2, 0, 0, 3, 0],
    [0, 0, 3, 3, 3, 3, 0],
)


def build(receiver: str = "qwen3", **choices: object) -> C2CModel:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, **choices)
    sharers = [load_frozen(tiny_pair("llama", 1)), load_frozen(tiny_pair("qwen2", 2))]
    torch.manual_seed(3)
    model = C2CModel(load_frozen(tiny_pair(receiver, 0)), sharers, config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def examples() -> list[PromptBatch]:
    """Prompts whose sharers read tokens of their own, of another number, in another place."""
    g = torch.Generator().manual_seed(7)
    batches = []
    for sections in SECTIONS:
        bits, length = torch.tensor([sections]), len(sections)
        receiver = TokenBatch(torch.randint(3, 300, (1, length), generator=g))
        sharers = []
        for number, extra in enumerate((3, -1)):
            ids = torch.randint(3, 300, (1, length + extra), generator=g)
            index = (torch.arange(length)[None] + extra).clamp(0, length + extra - 1)
            sharers.append(SharerTokens(ids, source_index=index.masked_fill((bits >> number) % 2 == 0, -1)))
        batches.append(PromptBatch(receiver, tuple(sharers)))
    return batches


def together(batches: list[PromptBatch]) -> PromptBatch:
    """The same prompts as one left-padded batch."""

    def pad(rows: list[Tensor], fill: int, width: int) -> Tensor:
        return torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0), value=fill) for row in rows])

    def tokens(parts: list[TokenBatch]) -> tuple[Tensor, Tensor]:
        width = max(part.input_ids.shape[1] for part in parts)
        return pad([p.input_ids for p in parts], 0, width), pad([p.mask for p in parts], 0, width)

    ids, mask = tokens([b.receiver for b in batches])
    sharers = []
    for number in range(2):
        parts = [b.sharers[number] for b in batches]
        own_ids, own_mask = tokens(parts)
        shifted = [torch.where(p.index >= 0, p.index + own_ids.shape[1] - p.input_ids.shape[1], -1) for p in parts]
        sharers.append(SharerTokens(own_ids, own_mask, source_index=pad(shifted, -1, ids.shape[1])))
    return PromptBatch(TokenBatch(ids, mask), tuple(sharers))


def slow_fused(model: C2CModel, prompt: PromptBatch, sections: list[int]) -> LayerStack:
    """Section by section: the receiver over its fused cache, then the fusers in place of this section's entries."""
    theirs = [
        run(lm.model, tokens.input_ids, DynamicCache())
        for lm, tokens in zip(model.sharers, prompt.sharers, strict=True)
    ]
    cache, begin, last = DynamicCache(), 0, len(sections) - 1
    while begin < last:
        end = begin + 1
        while end < last and sections[end] == sections[begin]:
            end += 1
        kv = run(model.receiver.model, prompt.receiver.input_ids[:, begin:end], cache)
        for number in range(2):
            source = prompt.sharers[number].index[0, begin:end]
            if sections[begin] >> number & 1:
                token = torch.arange(begin, end)
                reads = [FusedTokens(*(torch.zeros(0, dtype=torch.long),) * 3)] * 2
                reads[number] = FusedTokens(torch.zeros_like(token), token, source)
                with torch.no_grad():
                    kv = model.fuser(kv, theirs, FusionStep(begin, end, tuple(reads)))
        cache = DynamicCache(ddp_cache_data=[(layer.keys, layer.values) for layer in kv])
        begin = end
    return cache_entries(cache)


def run(lm: torch.nn.Module, ids: Tensor, cache: DynamicCache) -> LayerStack:
    with torch.no_grad():
        lm(ids, past_key_values=cache, use_cache=True)
    return cache_entries(cache)


@pytest.mark.parametrize("receiver", ["qwen3", "gemma3"])
def test_sections_are_those_of_the_slow_twin(receiver: str) -> None:
    model = build(receiver)
    for prompt, sections in zip(examples(), SECTIONS, strict=True):
        fused = cache_entries(model.fuse(prompt))
        for layer, twin in zip(fused, slow_fused(model, prompt, sections), strict=True):
            torch.testing.assert_close(layer.keys, twin.keys, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(layer.values, twin.values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("span_order", ["sectioned", "one_pass"])
@pytest.mark.parametrize("receiver", ["qwen3", "gemma3"])
def test_spans_of_unlike_prompts_in_one_batch(receiver: str, span_order: str) -> None:
    model, alone = build(receiver, span_order=span_order), examples()
    fused = cache_entries(model.fuse(together(alone)))
    for row, prompt in enumerate(alone):
        for batched, lone in zip(fused, cache_entries(model.fuse(prompt)), strict=True):
            count = lone.num_tokens
            torch.testing.assert_close(batched.keys[row : row + 1, :, -count:], lone.keys, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("span_order", ["sectioned", "one_pass"])
def test_rows_whose_last_spans_end_apart(span_order: str) -> None:
    """What follows a row's last span is computed on its fused entries, wherever the spans of other rows end."""
    model, alone = build(span_order=span_order), [prompt.with_share(0.4, "former") for prompt in examples()]
    batch = together(alone)
    ends = [max(int(s.index[row].argmax()) for s in batch.sharers) for row in range(len(alone))]
    assert len(set(ends)) > 1
    fused = cache_entries(model.fuse(batch))
    for row, prompt in enumerate(alone):
        for batched, lone in zip(fused, cache_entries(model.fuse(prompt)), strict=True):
            count = lone.num_tokens
            torch.testing.assert_close(batched.keys[row : row + 1, :, -count:], lone.keys, atol=1e-4, rtol=1e-4)


def test_one_pass_agrees_with_one_span_and_differs_with_several() -> None:
    model, several = build(), examples()[0]
    one = PromptBatch.shared(several.receiver.input_ids, num_sharers=2)
    for prompt, agrees in ((one, True), (several, False)):
        sectioned = cache_entries(model.fuse(prompt))
        model.fuser.config = replace(model.fuser.config, span_order="one_pass")
        passed = cache_entries(model.fuse(prompt))
        model.fuser.config = replace(model.fuser.config, span_order="sectioned")
        assert torch.allclose(sectioned[-1].keys, passed[-1].keys, atol=1e-5) == agrees


@pytest.mark.parametrize("layer_alignment", ["terminal", "skip"])
def test_gradients_cross_sections(layer_alignment: str) -> None:
    """What follows a span is computed on fused entries that are being trained; finite differences know that."""
    model, prompt = build(layer_alignment=layer_alignment), examples()[0]
    response, step = torch.full((1, 3), 9), 1e-3
    weight = model.fuser.sharers[0].groups[0].values.projector.output.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double()
    for lm in (model.receiver, *model.sharers):
        lm.model.double()
    model.fuser.double()
    weight = model.fuser.sharers[0].groups[0].values.projector.output.weight
    model(prompt, response).loss.backward()
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
            losses.append(model(prompt, response).loss)
            weight -= sign * step * direction
    torch.testing.assert_close(
        (weight.grad * direction).sum(), (losses[0] - losses[1]) / (2 * step), rtol=1e-2, atol=1e-3
    )


def test_each_label_counts_whatever_the_order() -> None:
    """The loss of a batch is the token-weighted mean of the losses alone, and does not depend on the order of rows."""
    model, alone = build(), examples()
    lengths = [3, 1, 2]
    ids = torch.randint(3, 300, (3, 3), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(3)[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        whole = model(together(alone), ids, mask).loss
        singles = [model(p, ids[n : n + 1, : lengths[n]]).loss * lengths[n] for n, p in enumerate(alone)]
        turned = model(together(alone[::-1]), ids.flip(0), mask.flip(0)).loss
    torch.testing.assert_close(whole, sum(singles) / sum(lengths), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, turned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("active", [(), (0,), (1,), (0, 1)])
def test_sharers_can_be_left_out(active: tuple[int, ...]) -> None:
    model, prompt = build(), together(examples())
    out = cache_entries(model.fuse(prompt, active_sharers=active))
    everybody = cache_entries(model.fuse(prompt))
    assert torch.equal(out[0].keys, everybody[0].keys) == (len(active) == 2)


def test_share_of_the_prompt() -> None:
    prompt = PromptBatch.shared(torch.arange(3, 14)[None])
    assert (prompt.with_share(0.5, "former").sharers[0].index >= 0).nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert (prompt.with_share(0.2, "latter").sharers[0].index >= 0).nonzero()[:, 1].tolist() == [8, 9]
    assert not (prompt.with_share(0.0, "latter").sharers[0].index >= 0).any()
    with pytest.raises(PromptError, match="must lie in"):
        prompt.with_share(1.5, "former")


def test_prompts_that_do_not_fit_are_named() -> None:
    ids = torch.arange(3, 8)[None]
    with pytest.raises(PromptError, match="points at position 9"):
        PromptBatch(TokenBatch(ids), (SharerTokens(ids, source_index=torch.full_like(ids, 9)),))
    padded = torch.tensor([[0, 1, 1, 1, 1]])
    with pytest.raises(PromptError, match="sharer 0 points at padding"):
        PromptBatch(TokenBatch(ids), (SharerTokens(ids, padded, source_index=torch.tensor([[0, 1, 2, 3, -1]])),))
    with pytest.raises(PromptError, match="one entry per receiver token"):
        PromptBatch(TokenBatch(ids), (SharerTokens(ids, source_index=torch.full((1, 2), -1)),))
    with pytest.raises(PromptError, match="padded on the left"):
        PromptBatch.shared(ids, torch.tensor([[1, 1, 1, 0, 0]]))
    with pytest.raises(PairMismatchError, match="tokens for 1 sharers, but the model has 2"):
        build().fuse(PromptBatch.shared(ids))
    long = PromptBatch.shared(torch.full((1, 700), 5), num_sharers=2)
    with pytest.raises(PromptError, match="longer than the context"):
        build().fuse(long)


def test_one_token_prompts_have_nothing_to_fuse() -> None:
    model = build()
    prompt = PromptBatch.shared(torch.tensor([[5]]), num_sharers=2)
    assert model.fuse(prompt).get_seq_length() == 0
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    assert torch.equal(
        model.generate(prompt, **settings), model.receiver.model.generate(torch.tensor([[5]]), **settings)
    )
