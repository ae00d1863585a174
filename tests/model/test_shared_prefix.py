"""A prefix that all rows share: one pass over it gives the caches of whole passes, and is made only where exact."""

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from c2c_lightning.data.token_batch import TokenBatch
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.shared_prefix import prefill_prompts, prefill_with_shared_prefix, shared_prefix_length
from tests.tiny import tiny_model, tiny_tokenizer

PREFIX = 20
VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 8,
    "patch_size": 8,
}


def frozen_lm(family: str) -> FrozenLM:
    return FrozenLM(tiny_model(family), tiny_tokenizer(), LMSpec(family))


def rows(lengths: list[int], seed: int = 0) -> TokenBatch:
    """Left-padded rows that share their first tokens."""
    generator = torch.Generator().manual_seed(seed)
    width = PREFIX + max(lengths)
    prefix = torch.randint(5, 60, (PREFIX,), generator=generator)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.randint(5, 60, (length,), generator=generator)
        ids[row, width - length] = 5 + row  # no row shares the next token
        ids[row, width - length - PREFIX : width - length] = prefix
        mask[row, width - length - PREFIX :] = 1
    return TokenBatch(ids, mask)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 1, 3]])
@pytest.mark.parametrize("trimmed", [0, 1])
def test_entries_are_those_of_whole_passes(family: str, lengths: list[int], trimmed: int) -> None:
    lm, tokens = frozen_lm(family), rows([length + trimmed for length in lengths])
    until = tokens.input_ids.shape[1] - trimmed
    assert shared_prefix_length(lm, tokens, until) == PREFIX
    shared = prefill_with_shared_prefix(lm, tokens, until, PREFIX, 2)
    whole = lm.prefill_tokens(tokens, until, None, 2)
    real = tokens.mask[:, :until].bool()
    for ours, theirs in zip(shared, whole, strict=True):
        for mine, other in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
            assert mine.shape == other.shape
            torch.testing.assert_close(mine.transpose(1, 2)[real], other.transpose(1, 2)[real], atol=1e-5, rtol=1e-5)


def test_nothing_is_shared_by_one_row_or_by_rows_that_differ_early() -> None:
    lm, tokens = frozen_lm("qwen3"), rows([4, 4])
    width = tokens.input_ids.shape[1]
    assert shared_prefix_length(lm, tokens.rows(torch.tensor([0])), width) == 0
    ids = tokens.input_ids.clone()
    ids[1, 3] += 1
    assert shared_prefix_length(lm, TokenBatch(ids), width) == 0


def test_equal_rows_leave_a_token_for_the_second_pass() -> None:
    lm, tokens = frozen_lm("qwen3"), rows([3])
    width = tokens.input_ids.shape[1]
    assert shared_prefix_length(lm, tokens.rows(torch.tensor([0, 0])), width) == width - 1


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 1, 3, 6]])
def test_rows_longer_than_a_sliding_window_are_continued_by_length(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, tokens = frozen_lm("gemma3"), rows(lengths)
    until = tokens.input_ids.shape[1]
    assert lm.limits.window is not None
    assert until > lm.limits.window
    expected, read = lm.prefill_tokens(tokens, until), counted_passes(lm, monkeypatch)
    found = prefill_prompts(lm, tokens, until)
    assert read == [PREFIX, *(n * lengths.count(n) for n in sorted(set(lengths), reverse=True))]
    real = tokens.mask.bool()
    for ours, theirs in zip(found, expected, strict=True):
        for mine, other in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
            torch.testing.assert_close(mine.transpose(1, 2)[real], other.transpose(1, 2)[real], atol=1e-5, rtol=1e-5)


def test_the_window_of_a_multimodal_model_is_known() -> None:
    """Its configuration names the window in that of the language model."""
    text = frozen_lm("gemma3").model.config
    config = Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=1)
    lm = FrozenLM(Gemma3ForConditionalGeneration(config), tiny_tokenizer(), LMSpec("gemma3"))
    assert lm.limits.window == text.sliding_window
    tokens = rows([PREFIX + 10, PREFIX + 4])
    assert shared_prefix_length(lm, tokens, tokens.input_ids.shape[1]) == 0, "padding would shift the window"


def test_rows_of_other_lengths_beyond_a_sliding_window_share_no_short_prefix() -> None:
    lm, tokens = frozen_lm("gemma3"), rows([PREFIX + 10, PREFIX + 4])
    assert shared_prefix_length(lm, tokens, tokens.input_ids.shape[1]) == 0
    assert shared_prefix_length(frozen_lm("qwen3"), tokens, tokens.input_ids.shape[1]) == PREFIX


def test_a_sharded_model_shares_nothing_so_that_processes_make_equal_passes() -> None:
    lm, tokens = frozen_lm("qwen3"), rows([4, 4])
    lm.is_sharded = True
    assert shared_prefix_length(lm, tokens, tokens.input_ids.shape[1]) == 0


def test_a_prefix_is_read_once_for_several_batches_until_tokens_or_weights_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, read = frozen_lm("qwen3"), []
    prefill = lm.prefill

    def counted(input_ids: torch.Tensor, *args: object) -> LayerStack:
        read.append(input_ids.numel())
        return prefill(input_ids, *args)

    monkeypatch.setattr(lm, "prefill", counted)

    def passes(tokens: TokenBatch) -> list[int]:
        read.clear()
        prefill_with_shared_prefix(lm, tokens, tokens.input_ids.shape[1], PREFIX, 2)
        return list(read)

    first, second, other = rows([4, 2]), rows([3, 5, 1]), rows([4, 2], seed=1)
    assert passes(first) == [PREFIX, 8]
    assert passes(second) == [15]
    assert passes(other) == [PREFIX, 8]
    with torch.no_grad():
        next(lm.model.parameters()).add_(1)
    assert passes(other) == [PREFIX, 8]


def test_the_entries_behind_a_kept_prefix_are_those_of_a_new_one() -> None:
    lm, batches = frozen_lm("qwen3"), [rows([4, 2]), rows([3, 5, 1])]
    kept = [prefill_with_shared_prefix(lm, tokens, tokens.input_ids.shape[1], PREFIX, 2) for tokens in batches][1]
    new = prefill_with_shared_prefix(frozen_lm("qwen3"), batches[1], batches[1].input_ids.shape[1], PREFIX, 2)
    for ours, theirs in zip(kept, new, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


def test_a_kept_prefix_serves_passes_over_fewer_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """C2C reads the sharer up to the deepest fused layer, the sharer alone reads all of them."""
    lm, tokens = frozen_lm("qwen3"), rows([4, 2])
    read = counted_passes(lm, monkeypatch)
    for num_layers, passes in ((1, [PREFIX, 8]), (None, [PREFIX, 8]), (1, [8]), (2, [8])):
        read.clear()
        kv = prefill_with_shared_prefix(lm, tokens, tokens.input_ids.shape[1], PREFIX, num_layers)
        assert read == passes
        assert len(kv) == (num_layers or lm.geometry.num_layers)


def counted_passes(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tokens of all later passes."""
    prefill, read = lm.prefill, []

    def counted(input_ids: torch.Tensor, *args: object) -> LayerStack:
        read.append(input_ids.numel())
        return prefill(input_ids, *args)

    monkeypatch.setattr(lm, "prefill", counted)
    return read


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_in_inference_single_prompts_share_text_with_earlier_ones(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, plain = frozen_lm(family), frozen_lm(family)
    read = counted_passes(lm, monkeypatch)
    with torch.inference_mode():
        for length, passes in ((4, [PREFIX + 4]), (6, [PREFIX, 6]), (5, [5])):
            tokens = rows([length])
            until = tokens.input_ids.shape[1]
            tokens.input_ids[0, PREFIX] += length  # no two prompts share the next token
            read.clear()
            found, expected = prefill_prompts(lm, tokens, until), plain.prefill_tokens(tokens, until)
            assert read == passes
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(ours.values, theirs.values, atol=1e-5, rtol=1e-5)


def test_in_training_a_single_prompt_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = frozen_lm("qwen3")
    read = counted_passes(lm, monkeypatch)
    for _ in range(2):
        prefill_prompts(lm, rows([4]), PREFIX + 4)
    assert read == [PREFIX + 4, PREFIX + 4]


def test_a_prefix_is_shared_by_a_model_that_was_loaded_in_inference_mode() -> None:
    tokens = rows([4, 2])
    with torch.inference_mode():
        shared = prefill_with_shared_prefix(frozen_lm("qwen3"), tokens, tokens.input_ids.shape[1], PREFIX, 2)
    new = prefill_with_shared_prefix(frozen_lm("qwen3"), tokens, tokens.input_ids.shape[1], PREFIX, 2)
    assert torch.equal(shared[1].keys, new[1].keys)
