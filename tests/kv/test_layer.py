"""Keys and values of one layer."""

import torch

from c2c_lightning.kv.layer import LayerKV, append_kv


def entries(tokens: int) -> LayerKV:
    return LayerKV(torch.randn(3, 2, tokens, 4), torch.randn(3, 2, tokens, 5))


def test_tokens_rows_and_repeats() -> None:
    kv = entries(6)
    assert torch.equal(kv.tokens(-1).keys, kv.keys[:, :, -1:])
    assert torch.equal(kv.tokens(1, 3).values, kv.values[:, :, 1:3])
    assert torch.equal(kv.rows(torch.tensor([2, 0, 2])).keys, kv.keys[[2, 0, 2]])
    assert torch.equal(kv.repeat(2).keys, kv.keys[[0, 0, 1, 1, 2, 2]])
    assert kv.num_tokens == 6


def test_an_empty_part_adds_no_copy() -> None:
    kv, empty = entries(6), entries(0)
    assert kv.append(empty) is kv
    assert empty.append(kv) is kv
    assert torch.equal(append_kv([kv], [kv])[0].keys, torch.cat([kv.keys, kv.keys], 2))
