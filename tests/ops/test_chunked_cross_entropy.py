"""The loss in chunks against the plain one."""

import pytest
import torch
from torch import nn

from c2c_lightning.ops.chunked_cross_entropy import LinearHead, summed_loss


def _head(cap: float | None = None) -> LinearHead:
    torch.manual_seed(0)
    return LinearHead(nn.Linear(6, 50, bias=False).requires_grad_(False), cap, 50)


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("tokens", [1, 7, 8])
def test_loss_and_gradient_in_chunks_are_those_of_the_whole(cap: float | None, tokens: int) -> None:
    head, targets = _head(cap), torch.arange(tokens) % 50
    hidden = torch.randn(tokens, 6, requires_grad=True)
    plain = summed_loss(head.logits(hidden), targets)
    chunked = head.summed_loss(hidden, targets, max_logits=3 * 50)
    torch.testing.assert_close(chunked, plain)
    expected, ours = torch.autograd.grad(2 * plain, hidden), torch.autograd.grad(2 * chunked, hidden)
    torch.testing.assert_close(ours, expected)


def test_never_more_logits_than_said() -> None:
    seen: list[int] = []
    head = _head()
    head.linear.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    head.summed_loss(torch.randn(10, 6, requires_grad=True), torch.arange(10), max_logits=4 * 50).backward()
    assert seen == [200, 200, 100]


def test_losses_of_bfloat16_are_summed_in_float32() -> None:
    head = LinearHead(nn.Linear(6, 50).bfloat16().requires_grad_(False), None, 50)
    hidden = torch.randn(9, 6).bfloat16()
    loss = head.summed_loss(hidden, torch.arange(9))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, summed_loss(head.logits(hidden).float(), torch.arange(9)))
