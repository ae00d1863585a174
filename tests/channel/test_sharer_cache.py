"""A sharer's cache as bytes: round trip, equality with a local sharer, and refusal of damaged or foreign bytes."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_lightning.channel.channel import Channel
from c2c_lightning.channel.envelope import seal, unseal
from c2c_lightning.channel.sharer_cache import SharerCache
from c2c_lightning.errors import ChannelError
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.cache_exchange import received_kv, sharer_caches
from tests.model.test_families import prompts
from tests.model.test_fusion_modes import SETTINGS, build

GEOMETRY = KVGeometry((LayerGeometry(2, 6, 4), LayerGeometry(1, 8, 8), LayerGeometry(2, 6, 4)))


def stack(dtype: torch.dtype = torch.float32) -> list[LayerKV]:
    torch.manual_seed(0)
    return [
        LayerKV(
            torch.randn(2, g.kv_heads, 5, g.key_dim).to(dtype), torch.randn(2, g.kv_heads, 5, g.value_dim).to(dtype)
        )
        for g in GEOMETRY.layers
    ]


IS_READ = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 1, 1]]).bool()


def small_cache(dtype: torch.dtype = torch.float32) -> SharerCache:
    return SharerCache.collect(stack(dtype), IS_READ, [2, 0], "me")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_round_trip_gives_the_read_entries_as_transmitted(bits: int, dtype: torch.dtype) -> None:
    channel, kv = Channel(bits, group=4), stack(dtype)
    cache = SharerCache.from_bytes(small_cache(dtype).to_bytes(channel))
    assert (cache.fingerprint, cache.batch, cache.columns, set(cache.entries)) == ("me", 2, 5, {0, 2})
    result = cache.to_stack(GEOMETRY, 3)
    mask = IS_READ[:, None, :, None]
    for n in (0, 2):
        expected = channel.transmit(kv[n])
        assert torch.equal(result[n].keys, expected.keys.where(mask, 0))
        assert torch.equal(result[n].values, expected.values.where(mask, 0))
        assert result[n].keys.dtype == dtype
    assert not result[1].keys.any()


@pytest.mark.parametrize("mode", ["prefill", "prompt"])
@pytest.mark.parametrize(("bits", "sent_bits"), [(32, 32), (4, 4), (8, 32)])
def test_answers_with_a_received_cache_equal_those_with_a_local_sharer(mode: str, bits: int, sent_bits: int) -> None:
    model, prompt = build("gemma3", "qwen2", mode, num_sharers=2, channel=ChannelConfig(bits, group=8)), prompts()
    prompt = replace(prompt, sharers=prompt.sharers * 2)
    sent = [cache.to_bytes(Channel(sent_bits, group=8)) for cache in sharer_caches(model, prompt)]
    received = received_kv(model, [SharerCache.from_bytes(data) for data in sent])
    ids = torch.arange(3, 3 + 4 * len(prompt)).view(len(prompt), 4)
    with torch.no_grad():
        local = model(prompt, ids).logits
    remote = model.generate(prompt, sharer_kv=received, return_dict_in_generate=True, output_logits=True, **SETTINGS)
    expected = model.generate(prompt, return_dict_in_generate=True, output_logits=True, **SETTINGS)
    assert torch.equal(remote.sequences, expected.sequences)
    for ours, theirs in zip(remote.logits, expected.logits, strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(local[:, 0], expected.logits[0], atol=1e-3, rtol=1e-3)


def logits(model: C2CModel) -> torch.Tensor:
    with torch.no_grad():
        return model(prompts(), torch.full((len(prompts()), 3), 5)).logits


@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
def test_configured_bits_change_fused_answers_by_little_and_closed_gates_by_nothing(mode: str) -> None:
    model = build("qwen3", "llama", mode)
    exact = logits(model)
    distances = []
    for bits in (16, 8, 4):
        model.fuser.config = replace(model.fuser.config, channel=ChannelConfig(bits))
        distances.append(float((logits(model) - exact).norm() / exact.norm()))
    assert 0 < distances[1] < distances[2] < 0.5
    assert 0 < distances[0] < distances[2]
    model.fuser.force_gates(is_open=False)
    closed = logits(model)
    model.fuser.config = replace(model.fuser.config, channel=ChannelConfig())
    assert torch.equal(closed, logits(model))


def test_channel_is_saved_with_the_fuser(tmp_path: Path) -> None:
    model = build("qwen3", "llama", "prefill", channel=ChannelConfig(4, group=16, noise=True))
    model.save_pretrained(tmp_path / "fuser")
    loaded = C2CModel.from_pretrained(tmp_path / "fuser", receiver=model.receiver, sharers=list(model.sharers))
    assert loaded.fuser.config.channel == ChannelConfig(4, group=16, noise=True)
    assert torch.equal(logits(loaded), logits(model))


def test_sent_bytes_are_few() -> None:
    torch.manual_seed(0)
    kv = [LayerKV(torch.randn(1, 4, 100, 64), torch.randn(1, 4, 100, 64)) for _ in range(8)]
    cache = SharerCache.collect(kv, torch.ones(1, 100).bool(), range(8), "me")
    whole = 8 * 2 * 4 * 100 * 64 * 4
    sizes = {bits: len(cache.to_bytes(Channel(bits))) / whole for bits in (32, 16, 8, 4)}
    assert sizes[32] < 1.01
    assert sizes[16] < 0.505
    assert sizes[8] < 0.26
    assert sizes[4] <= 1 / 8, "compression makes up for the scales"


def test_decode_mode_is_refused() -> None:
    with pytest.raises(ChannelError, match="fusion mode `decode`"):
        sharer_caches(build("qwen3", "llama", "decode"), prompts())


def test_cache_of_another_model_is_refused() -> None:
    model, other = build("qwen3", "llama", "prefill"), build("qwen3", "qwen2", "prefill")
    caches = sharer_caches(other, prompts())
    with pytest.raises(ChannelError, match="made by another model"):
        received_kv(model, caches)
    with pytest.raises(ChannelError, match="there are 0 caches for 1 sharers"):
        received_kv(model, [])
    with pytest.raises(ChannelError, match="of another model: its layer 0"):
        small_cache().to_stack(KVGeometry((LayerGeometry(1, 6, 4),)), 1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_flipped_bit_and_every_cut_is_noticed(data: st.DataObject) -> None:
    sent = small_cache().to_bytes(Channel(data.draw(st.sampled_from([32, 4])), group=4))
    place = data.draw(st.integers(0, len(sent) - 1))
    flipped = bytearray(sent)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(flipped), sent[:place], sent + b"x"):
        with pytest.raises(ChannelError):
            SharerCache.from_bytes(damaged)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_sealed_payload_is_read_or_refused_by_name(payload: bytes) -> None:
    with pytest.raises(ChannelError):
        SharerCache.from_bytes(seal(payload, compress=True))


def test_size_limits_hold_before_decompression() -> None:
    bomb = seal(bytes(10_000_000), compress=True)
    assert len(bomb) < 2_000_000
    with pytest.raises(ChannelError, match="at most 1000 are accepted"):
        unseal(bomb, 1000)
    with pytest.raises(ChannelError, match="format version 9"):
        unseal(bomb[:8] + struct.pack("<I", 9) + bomb[12:], 2**30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, "3 bits per entry"),
        ({"bits": 8, "group": 0}, "groups of 0"),
        ({"columns": 4}, "names tokens beyond its 4"),
        ({"columns": 2**40}, "more than"),
        ({"layers": {"0": [2, 6, 5]}}, "should hold"),
        ({"layers": {"0": [-2, -6, 5]}}, "shapes"),
        ({"layers": {"zero": [2, 6, 4]}}, "not consistent"),
        ({"dtype": "int64"}, "not consistent"),
    ],
)
def test_header_that_does_not_fit_is_refused(change: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = json.dumps
    monkeypatch.setattr(
        "c2c_lightning.channel.sharer_cache.json.dumps", lambda header: real({**json.loads(real(header)), **change})
    )
    data = small_cache().to_bytes()
    monkeypatch.undo()
    with pytest.raises(ChannelError, match=message):
        SharerCache.from_bytes(data)
