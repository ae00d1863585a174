"""Rotary embedding on plain tensors: against complex numbers, and its exact inverse."""

import pytest
import torch

from c2c_lightning.kv.rotary import rotate


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("pairs", [4, 3, 0])
def test_rotation_is_a_complex_product_and_its_inverse_is_exact(pairs: int, interleaved: bool) -> None:
    keys = torch.randn(5, 8, dtype=torch.float64)
    angle = torch.randn(5, pairs, dtype=torch.float64) * 1000
    rotated = rotate(keys, angle, interleaved)
    for pair in range(pairs):
        i, j = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + pairs)
        expected = torch.complex(keys[:, i], keys[:, j]) * torch.polar(torch.ones(5).double(), angle[:, pair])
        torch.testing.assert_close(torch.complex(rotated[:, i], rotated[:, j]), expected)
    assert torch.equal(rotated[:, 2 * pairs :], keys[:, 2 * pairs :]), "dimensions outside the pairs stay"
    torch.testing.assert_close(rotate(rotated, -angle, interleaved), keys, atol=1e-14, rtol=0)
