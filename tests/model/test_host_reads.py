"""A training step makes the host wait for no value of the device.

The device is `meta`, whose tensors have no values (see `benchmarks.host_reads`). The attention is sdpa, transformers'
default, whose masks transformers reads.
"""

from itertools import product

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from benchmarks.host_reads import DEVICE, HostReadError, host_reads_refused
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch
from c2c_lightning.data.mismatch import swap_rows
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.train_model import TrainModel
from tests.tiny import Style, tiny_model, tiny_tokenizer

MODES = ("prefill", "prompt", "decode")


def frozen(family: str, seed: int, style: Style = "chatml", attention: str = "sdpa") -> FrozenLM:
    lm = FrozenLM(tiny_model(family, seed, attn_implementation=attention), tiny_tokenizer(style), LMSpec(family))
    _ = lm.head  # found once, by a comparison that reads values
    return lm


def model_on_device(mode: str, sharer_style: Style = "chatml", receiver: str = "qwen3") -> TrainModel:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, fusion_mode=mode, gate_noise="gumbel")
    receiver_lm, sharer = frozen(receiver, 0), frozen("llama", 1, sharer_style)
    return TrainModel(receiver_lm, [sharer], config).train().to(DEVICE)  # type: ignore[return-value]


def training_batch(is_padded: bool, has_own_tokens: bool = False) -> TrainingBatch:
    """Three examples on the host; with `has_own_tokens` the sharer reads other tokens, and two spans are fused."""
    rows, columns = 3, 12
    ids, response = torch.randint(3, 250, (rows, columns)), torch.randint(3, 250, (rows, 6))
    padding = torch.tensor([0, 3, 5]) if is_padded else torch.zeros(rows, dtype=torch.long)
    mask = (torch.arange(columns) >= padding[:, None]).long()
    lengths = torch.tensor([6, 2, 4]) if is_padded else torch.full((rows,), 6)
    supervised = torch.arange(6) < lengths[:, None]
    prompt = PromptBatch.shared(ids, mask)
    if has_own_tokens:
        own_ids = torch.randint(3, 250, (rows, columns + 4))
        own_mask = torch.nn.functional.pad(mask, (4, 0), value=0 if is_padded else 1)
        source = torch.where(prompt.sharers[0].index >= 0, prompt.sharers[0].index + 4, -1)
        source[:, 7] = -1
        prompt = PromptBatch(TokenBatch(ids, mask), (SharerTokens(own_ids, own_mask, source_index=source),))
    return TrainingBatch(prompt, response, supervised)


def step(model: TrainModel, batch: TrainingBatch) -> None:
    """Loss, gradients, clipping and update, as a fit does them."""
    parameters = list(model.fuser.parameters())
    optimizer = AdamW(parameters, foreach=True)
    (model.batch_loss(batch) / batch.response_mask.sum()).backward()
    clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    assert {p.grad.device for p in parameters if p.grad is not None} == {DEVICE}
    assert all(p.grad is not None for p in parameters)


@pytest.mark.parametrize(("mode", "is_padded", "style"), list(product(MODES, (False, True), ("chatml", "header"))))
def test_a_training_step_waits_for_no_value(mode: str, is_padded: bool, style: Style) -> None:
    model = model_on_device(mode, style)
    host = training_batch(is_padded, has_own_tokens=style == "header")
    with host_reads_refused():
        step(model, host.to(DEVICE))


@pytest.mark.parametrize("receiver", ["gemma3", "mistral", "phi3", "smollm3", "qwen2"])
def test_a_step_of_other_families_waits_for_no_value(receiver: str) -> None:
    """Sliding windows, layers of two kinds, layers without rotary embeddings."""
    model, batch = model_on_device("prefill", receiver=receiver), training_batch(is_padded=True).to(DEVICE)
    with host_reads_refused():
        step(model, batch)


def test_a_validation_step_waits_for_no_value() -> None:
    model, batch = model_on_device("prefill"), training_batch(is_padded=True).to(DEVICE)
    with host_reads_refused(), torch.no_grad():
        model.eval().batch_loss(batch)
        model.batch_loss(swap_rows(batch))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: bool(x.sum() == x.numel()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: torch.ones(4).to(DEVICE),
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: torch.tensor([1, 2], device=DEVICE),
    ],
)
def test_waits_are_found(read: object) -> None:
    assert callable(read)
    with host_reads_refused(), pytest.raises((HostReadError, RuntimeError)):
        read(torch.zeros(4, device=DEVICE))
