"""The block of stacked layers against a plain one, layer by layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2c_lightning.ops.residual_mlp import ResidualMLP
from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import rms_factor


def _block(dropout: float = 0.0) -> ResidualMLP:
    torch.manual_seed(0)
    block = ResidualMLP(3, 8, 6, dropout).double()
    torch.nn.init.normal_(block.norm.weight)
    return block


def _plain(block: ResidualMLP, x: Tensor) -> Tensor:
    rows = []
    for n, layer in enumerate(x):
        normed = F.rms_norm(layer, (8,), eps=1e-6) * block.norm.weight[n]
        rows.append(layer + F.gelu(normed @ block.w1.weight[n]) @ block.w2.weight[n])
    return torch.stack(rows)


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_outputs_and_gradients_are_those_of_the_plain_block(tokens: int) -> None:
    block, x = _block(), torch.randn(3, tokens, 8, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(3, tokens, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), _plain(block, x))
    inputs = (x, *block.parameters())
    ours, expected = (torch.autograd.grad(y, inputs, seed) for y in (block(x), _plain(block, x)))
    torch.testing.assert_close(ours, expected)
    for without_gradients in (block.train(), block.eval()):
        whole, before = _plain(block, x), x.detach().clone()
        with torch.no_grad():
            torch.testing.assert_close(without_gradients(x), whole)
        assert torch.equal(x, before)


def test_half_precision_norms_as_well_as_pytorch_does() -> None:
    x = torch.randn(3, 200, 64).bfloat16()
    exact = F.rms_norm(x.double(), (64,), eps=1e-6)
    ours, theirs = (
        (y.double() - exact).abs().mean() for y in ((x * rms_factor(x)).bfloat16(), F.rms_norm(x, (64,), eps=1e-6))
    )
    assert ours <= 1.01 * theirs
    block = ResidualMLP(3, 64, 32, 0.0).bfloat16()
    x.requires_grad_()
    block(x).sum().backward()
    assert x.grad is not None
    assert {tensor.dtype for tensor in (x.grad, *(p.grad for p in block.parameters()))} == {torch.bfloat16}


def test_gradients_are_those_of_finite_differences() -> None:
    block, x = _block(), torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_little_is_kept_for_the_way_back() -> None:
    block, x = _block(), torch.randn(3, 50, 8, dtype=torch.float64, requires_grad=True)
    weights = {parameter.data_ptr() for parameter in block.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x)
    assert sum(kept.values()) == 3 * 50 * (8 + 6)  # the input and what goes into the gelu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_under_autocast_and_without_gradients(dtype: torch.dtype) -> None:
    block, x = _block().float(), torch.randn(3, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block(x.requires_grad_()))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        update = block(x)
        update.sum().backward()
    torch.testing.assert_close(update, _plain(block, x), rtol=0.03, atol=0.03)


def test_dropout_is_not_forgotten() -> None:
    block, x = _block(dropout=0.5), torch.randn(3, 4, 8, dtype=torch.float64)
    assert not torch.equal(block(x), block(x))
    torch.testing.assert_close(block.eval()(x), _plain(block, x))


@pytest.mark.parametrize("tokens", [0, 1, 5, 9])  # fewer and more than the inner width
def test_in_inference_the_input_may_be_overwritten(tokens: int) -> None:
    block, x = _block(), torch.randn(3, tokens, 8, dtype=torch.float64)
    expected, given = _plain(block, x), x.clone()
    with torch.no_grad():
        result = block.overwrite(given)
    torch.testing.assert_close(result, expected)
    assert result.data_ptr() == given.data_ptr()


def test_nothing_is_overwritten_where_gradients_or_dropout_need_it() -> None:
    block, x = _block(dropout=0.5), torch.randn(3, 4, 8, dtype=torch.float64)
    before = x.clone()
    block.eval().overwrite(x).sum().backward()
    assert block.w1.weight.grad is not None
    with torch.no_grad():
        block.train().overwrite(x)
    assert torch.equal(x, before)


def test_a_map_of_parts_is_that_of_their_concatenation() -> None:
    linear, parts = StackedLinear(3, 7, 5).double(), [torch.randn(3, 4, n, dtype=torch.float64) for n in (2, 5)]
    expected = linear(torch.cat(parts, -1))
    assert torch.equal(linear.of_parts(*parts), expected)
    with torch.no_grad():
        torch.testing.assert_close(linear.of_parts(*parts), expected)
        for bias in (True, False):
            plain = StackedLinear(3, 7, 5, bias).double()
            torch.testing.assert_close(plain.of_parts(*parts), plain(torch.cat(parts, -1)))
