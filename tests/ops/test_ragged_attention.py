"""SequenceLengths that lie in one: the same entries and gradients as in a padded batch, for every kind of attention."""

from unittest.mock import patch

import pytest
import torch

from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.ops.ragged_attention import (
    RaggedBatch,
    SequenceLengths,
    current_attention,
    is_contiguous,
    ragged_attention,
    supports_ragged_attention,
)
from tests.tiny import FAMILIES, WINDOW, tiny_model, tiny_pair

LENGTHS = (2 * WINDOW, 3, 0, WINDOW + 1)


def _left_padded() -> torch.Tensor:
    width = max(LENGTHS)
    return torch.stack([torch.arange(width) >= width - length for length in LENGTHS])


def _attention(lm: FrozenLM) -> str:
    name: str = lm.model.config._attn_implementation
    return name


def test_packed_and_unpacked_again() -> None:
    mask = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    ragged, padded = RaggedBatch.of(mask), torch.randn(3, 4, 5)
    assert ragged.lengths == (2, 0, 4)
    assert torch.equal(ragged.pack(padded)[0], padded[mask])
    assert torch.equal(ragged.unpack(ragged.pack(padded)), padded * mask[..., None])
    kv = LayerKV(torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 6))
    again = ragged.unpack_kv(ragged.pack_kv(kv))
    assert torch.equal(again.keys, kv.keys * mask[:, None, :, None])
    assert torch.equal(again.values, kv.values * mask[:, None, :, None])


def test_new_entries_stand_behind_those_of_their_row() -> None:
    rows = SequenceLengths(new=(2, 0, 1), cached=(1, 2, 3))
    prefix = torch.randn(3, 2, 3, 4, requires_grad=True)
    new = torch.randn(1, 2, 3, 4, requires_grad=True)
    expected = torch.cat([prefix[0, :, 2:], new[0, :, :2], prefix[2], new[0, :, 2:]], 1)[None]
    assert rows.spans == [(2, 3), (1, 4)]
    assert torch.equal(rows.join(prefix, new), expected)
    seed = torch.randn_like(expected)
    ours, plain = (torch.autograd.grad(y, (prefix, new), seed) for y in (rows.join(prefix, new), expected))
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize(
    ("mask", "expected"), [([[0, 1], [1, 1], [0, 0], [1, 0]], True), ([[1, 0, 1]], False), ([[0, 1, 0, 1]], False)]
)
def test_rows_without_padding_between_their_tokens(mask: list[list[int]], expected: bool) -> None:
    assert is_contiguous(torch.tensor(mask)) is expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["own", "eager"])
def test_a_prefill_gives_the_entries_of_the_padded_batch(family: str, attention: str) -> None:
    lm = load_frozen(tiny_pair(family, 0))
    own = _attention(lm)
    if attention == "eager":
        lm = FrozenLM(tiny_model(family, 0, attn_implementation="eager"), lm.tokenizer, lm.spec)
    assert lm.supports_ragged
    mask = _left_padded()
    ids = torch.randint(3, 300, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    positions, shapes = (mask.cumsum(1) - 1).clamp(min=0), []

    def seen(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    handle = lm.model.register_forward_pre_hook(seen, with_kwargs=True)
    packed = lm.prefill(ids, mask.long(), positions)
    with patch.object(FrozenLM, "supports_ragged", False):
        padded = lm.prefill(ids, mask.long(), positions)
    handle.remove()
    assert shapes == [(1, sum(LENGTHS)), tuple(mask.shape)]
    real = mask[:, None, :, None]
    for ours, plain in zip(packed, padded, strict=True):
        assert ours.keys.shape == plain.keys.shape
        torch.testing.assert_close(ours.keys * real, plain.keys * real, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.values * real, plain.values * real, rtol=1e-4, atol=1e-5)
        assert not ours.keys[~real.expand_as(ours.keys)].any()
    assert _attention(lm) == ("eager" if attention == "eager" else own)


@pytest.mark.parametrize("family", ["gemma3", "gemma2", "mistral", "qwen3"])
def test_padding_between_tokens_keeps_its_columns(family: str) -> None:
    """Windows count columns, so tokens are not moved together."""
    lm, mask = load_frozen(tiny_pair(family, 0)), _left_padded()[:2]
    mask[0, 4] = False
    ids, positions = torch.arange(3, 3 + mask.numel()).view(mask.shape), (mask.cumsum(1) - 1).clamp(min=0)
    ours = lm.prefill(ids, mask.long(), positions)
    with patch.object(FrozenLM, "supports_ragged", False):
        plain = lm.prefill(ids, mask.long(), positions)
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(ours, plain, strict=True))


def test_attention_is_the_models_own_again_whatever_happens() -> None:
    lm = load_frozen(tiny_pair("qwen3", 0))
    own, rows = _attention(lm), SequenceLengths((1,), (0,))
    with pytest.raises(ZeroDivisionError), ragged_attention(lm.model, rows):
        raise ZeroDivisionError
    assert _attention(lm) == own
    with ragged_attention(lm.model, rows):
        later = current_attention(lm.model)
    with later:
        assert _attention(lm) != own
    with current_attention(lm.model):
        assert _attention(lm) == own


def test_a_model_of_unknown_attention_is_run_padded() -> None:
    lm = load_frozen(tiny_pair("llama", 0))
    assert supports_ragged_attention(lm.model)
    with patch.object(type(lm.model), "_supports_attention_backend", False):
        assert not supports_ragged_attention(lm.model)
    other = tiny_model("llama", 0)
    other.config._attn_implementation = "flex_attention"
    assert not supports_ragged_attention(other)


def test_packed_only_where_padding_costs_more_than_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, mask = load_frozen(tiny_pair("qwen3", 0)), _left_padded()
    padding = int((~mask).sum())
    assert lm.gains_by_ragged(mask)
    assert not lm.gains_by_ragged(torch.ones_like(mask))
    monkeypatch.setattr("c2c_lightning.model.frozen_lm.SEQUENCE_FLOP", padding * lm.layer_flop / len(mask))
    assert not lm.gains_by_ragged(mask)
    mask[0, 0] = False
    assert lm.gains_by_ragged(mask)
