"""Activation checkpointing: the same gradients from less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.training.runs import batch, module


def gradients(models: Path, is_replayed: bool, **choices: Any) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Loss, gradients, and the bytes that are kept for the way back."""
    torch.manual_seed(1)
    made = module(models, settings={"activation_checkpointing": is_replayed}, **choices)
    made.configure_model()
    rows = batch(made, [1, 2, 3, 4])
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    torch.manual_seed(2)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = made.model.batch_loss(rows)
    loss.backward()
    return loss.detach(), [p.grad for p in made.parameters() if p.grad is not None], kept


@pytest.mark.parametrize("fusion_mode", ["prefill", "prompt", "decode"])
def test_the_same_gradients_from_less(fusion_mode: str, models: Path) -> None:
    """With gate noise and dropout, which must be drawn the same again."""
    choices = {"fusion_mode": fusion_mode, "gate_noise": "logistic", "dropout": 0.2}
    loss, expected, kept = gradients(models, is_replayed=False, **choices)
    again, found, less = gradients(models, is_replayed=True, **choices)
    assert again == loss
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert any(theirs.abs().max() > 1e-4 for theirs in expected)
    assert less < 0.75 * kept  # the fuser keeps its own


def test_no_block_is_left_changed(models: Path) -> None:
    made = module(models, settings={"activation_checkpointing": True})
    made.configure_model()
    rows = batch(made, [1])
    made.model.batch_loss(rows).backward()
    assert not any("forward" in vars(block) for block in made.model.receiver.blocks)
