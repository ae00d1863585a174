"""The norm of many layers against the plain one."""

import pytest
import torch
import torch.nn.functional as F

from c2c_lightning.fuser.rms_norm import EPS, StackedRMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_and_its_gradients_are_those_of_the_plain_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = StackedRMSNorm(3, 8).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 8, dtype=dtype, requires_grad=True)
    seed = torch.randn(3, 5, 8, dtype=dtype)
    plain = F.rms_norm(x, (8,), eps=EPS) * norm.weight
    torch.testing.assert_close(norm(x), plain)
    ours = torch.autograd.grad(norm(x), (x, norm.weight), seed)
    expected = torch.autograd.grad(plain, (x, norm.weight), seed)
    torch.testing.assert_close(ours, expected)


def test_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    norm = StackedRMSNorm(2, 4).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def test_without_gradients_nothing_changes() -> None:
    norm, x = StackedRMSNorm(2, 4), torch.randn(2, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), F.rms_norm(x, (4,), eps=EPS) * norm.weight)
    assert norm(x).requires_grad
