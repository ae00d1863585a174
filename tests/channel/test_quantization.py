"""Quantised entries: error bounds, invariance to the batch, repetition without further loss, expected value."""

import pytest
import torch
from torch import Tensor

from c2c_lightning.channel.channel import Channel
from c2c_lightning.channel.quantization import pack_nibbles, quantize, unpack_nibbles
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.layer import LayerKV


def entries(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * torch.rand(shape[-1], generator=generator).exp()


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (4, 7)])
@pytest.mark.parametrize("group", [1, 5, 16, 64])
def test_error_is_at_most_half_a_scale_of_the_own_group(bits: int, limit: int, group: int) -> None:
    x = entries(2, 3, 4, 12)
    quantized = quantize(x, bits, group)
    error = (quantized.dequantize(torch.float32) - x).abs()
    for begin in range(0, 12, group):
        part = slice(begin, begin + group)
        scale = x[..., part].abs().amax(-1, keepdim=True) / limit
        # The scale is rounded to bfloat16, which may clip the largest entry by half a percent.
        assert (error[..., part] <= scale * (0.5 + limit * 2**-8)).all()
    assert quantized.codes.abs().max() <= limit
    assert quantized.scales.shape == (2, 3, 4, -(-12 // group))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_transmitting_twice_changes_nothing_more(bits: int) -> None:
    layer = LayerKV(entries(2, 3, 5, 64), entries(2, 3, 5, 48, seed=1))
    channel = Channel(bits, group=32)
    once = channel.transmit(layer)
    twice = channel.transmit(once)
    assert torch.equal(once.keys, twice.keys)
    assert torch.equal(once.values, twice.values)
    assert not torch.equal(once.keys, layer.keys)


def test_a_token_is_quantised_alone_as_in_a_batch() -> None:
    x = entries(3, 2, 7, 24)
    together = quantize(x, 4, 16).dequantize(torch.float32)
    alone = quantize(x[1:2, :, 4:5], 4, 16).dequantize(torch.float32)
    assert torch.equal(alone, together[1:2, :, 4:5])


def test_dither_is_unbiased_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer = LayerKV(entries(1, 1, 1, 8), entries(1, 1, 1, 8, seed=1))
    channel = Channel(4, noise=True)
    assert torch.equal(channel.transmit(layer).keys, channel.transmit(layer).keys)
    mean = torch.stack([channel.transmit(layer, training=True).keys for _ in range(1000)]).mean(0)
    step = float(layer.keys.abs().max()) / 7
    assert (mean - layer.keys).abs().max() < 0.1 * step
    assert (channel.transmit(layer).keys - layer.keys).abs().max() > 0.1 * step


def test_zero_entries_stay_zero_and_nan_is_not_hidden() -> None:
    assert torch.equal(quantize(torch.zeros(1, 4), 4, 4).dequantize(torch.float32), torch.zeros(1, 4))
    assert quantize(torch.tensor([[1.0, torch.nan]]), 8, 2).dequantize(torch.float32).isnan().any()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_nibbles_round_trip(count: int) -> None:
    codes = torch.arange(count, dtype=torch.int8) % 15 - 7
    packed = pack_nibbles(codes)
    assert packed.numel() == -(-count // 2)
    assert torch.equal(unpack_nibbles(packed, count), codes)


@pytest.mark.parametrize(("bits", "expected"), [(32, 2 * 96 * 4), (16, 2 * 96 * 2), (8, 2 * 100), (4, 2 * 52)])
def test_bytes_of_a_token(bits: int, expected: float) -> None:
    # 2 heads of 64 + 32 channels; groups of 64: one scale of 2 bytes each for keys and values.
    assert Channel(bits).token_bytes(LayerGeometry(2, 64, 32)) == expected
