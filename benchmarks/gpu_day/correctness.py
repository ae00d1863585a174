"""Correctness on the device: the recorded numbers of the released code, and equality with the CPU."""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers.utils import is_flash_attn_2_available

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.host_sync import no_host_sync
from benchmarks.gpu_day.inference import float32_products
from benchmarks.gpu_day.journal import Journal, Refuted, Result, Skipped
from benchmarks.gpu_day.pairs import small_batches, small_model
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.fuser.kind import _REGISTERED
from c2c_lightning.model.c2c import C2CModel
from tests.golden.parity import Golden, all_rows, difference, stacked

MODES = ("prefill", "prompt", "decode")
BF16 = 0.03
"""Largest difference in bfloat16, relative to the largest entry: some roundings of 2 ** -9 each."""


def run(day: Day, journal: Journal) -> None:
    """Run all checks; after the first one in full float32, which their tolerances need."""
    journal.check("float32 products use TF32 by default", lambda: tf32_by_default(day))
    with float32_products("float32"):
        _checks(day, journal)


def tf32_by_default(day: Day) -> Result:
    """A model that comes to a CUDA device lets float32 products use TF32; the precision of CPUs stays."""
    if not day.is_cuda:
        raise Skipped("TF32 is a type of CUDA devices")
    small_model(day.device)
    cpu = torch.backends.mkldnn.matmul.fp32_precision if hasattr(torch.backends.mkldnn, "matmul") else "none"
    result: Result = {"cuda": torch.backends.cuda.matmul.allow_tf32, "cpu": cpu}
    if not torch.backends.cuda.matmul.allow_tf32 or cpu == "tf32":
        raise Refuted("TF32 is not allowed on CUDA alone", result)
    return result


def _checks(day: Day, journal: Journal) -> None:
    journal.check("golden data, float32", lambda: golden_float32(day))
    journal.check("golden data, bfloat16", lambda: golden_bfloat16(day))
    journal.check("closed gates: the receiver token for token", lambda: closed_gates(day))
    for mode in MODES:
        journal.check(f"fusion mode {mode} equals the CPU", partial(equals_cpu, day, fusion_mode=mode))
        journal.check(f"fusion mode {mode}: alone equals batch", partial(alone_equals_batch, day, mode))
    for kind in sorted(_REGISTERED):
        journal.check(f"fuser kind {kind} equals the CPU", partial(equals_cpu, day, kind=kind))
    for name in ("eager", "flash_attention_2"):
        journal.check(f"attention {name} equals sdpa", partial(attention, day, name))
    for mode in MODES:
        journal.check(f"no host synchronisation in the training step, {mode}", partial(no_host_sync, day, mode))
    for dtype in ("bfloat16", "float16"):
        journal.check(f"{dtype} near float32", partial(dtype_near_float32, day, dtype))


def golden_float32(day: Day) -> Result:
    """Every recorded tensor, with the tolerances of the CPU tests."""
    rows = list(all_rows(_golden(day)))
    shares = {row.what: row.maximum / row.tolerance if row.tolerance else row.maximum for row in rows}
    worst = max(shares, key=lambda name: shares[name])
    wrong = {row.what: row.maximum for row in rows if not row.maximum <= row.tolerance}
    result = {"rows": len(rows), "worst": worst, "worst_share_of_tolerance": shares[worst], "wrong": wrong}
    if wrong:
        raise Refuted(f"{len(wrong)} recorded tensors differ: {', '.join(wrong)}", result)
    return result


def _golden(day: Day) -> Golden:
    golden = Golden()
    golden.model.to(day.device)
    golden.tensors = {name: tensor.to(day.device) for name, tensor in golden.tensors.items()}
    return golden


def golden_bfloat16(day: Day) -> Result:
    """Fused caches, logits and losses with language models in bfloat16 and the fuser in float32."""
    golden = _golden(day)
    for lm in (golden.model.receiver, *golden.model.sharers):
        lm.model.to(torch.bfloat16)
    with torch.no_grad():
        shares = dict(chain.from_iterable(_bfloat16_rows(golden, name) for name in ("single.0", "single.1")))
    return _within(shares, BF16)


def _bfloat16_rows(golden: Golden, name: str) -> Iterator[tuple[str, float]]:
    prompt, response = golden.case(name)
    fused = golden.model.fuse_prompt(prompt, golden.model.prefill_sharers(prompt)).fused_kv
    output = golden.model(prompt, response)
    for what, ours in (("fused_kv", stacked(fused)), ("logits", output.logits), ("loss", output.loss)):
        theirs = golden[f"{name}.{what}"]
        yield f"{name}.{what}", difference(ours.float(), theirs) / float(theirs.abs().max())


def _within(shares: dict[str, float], tolerance: float) -> Result:
    result: Result = {"tolerance": tolerance, **shares}
    wrong = [name for name, share in shares.items() if not share <= tolerance]
    if wrong:
        raise Refuted(f"above the tolerance of {tolerance:g}: {', '.join(wrong)}", result)
    return result


def closed_gates(day: Day) -> Result:
    """With closed gates the fused model generates what the receiver does by itself."""
    model = small_model(day.device)
    model.fuser.force_gates(is_open=False)
    batch = small_batches(day.device)[0]
    tokens, kwargs = batch.prompt.receiver, {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    fused = model.generate(batch.prompt, **kwargs)
    own = model.receiver.model.generate(tokens.input_ids, attention_mask=tokens.mask, **kwargs)
    different = int((fused != own).sum())
    assert not different, f"{different} of {own.numel()} tokens differ"
    return {"tokens": own.numel()}


def equals_cpu(day: Day, **fuser: Any) -> Result:
    """Losses, gradients and generated tokens in float32 equal those of the CPU."""
    ours, theirs = (_answer(device, **fuser) for device in (day.device, "cpu"))
    shares = {name: float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours}
    return _within(shares, 1e-4)


def _answer(device: str, **fuser: Any) -> dict[str, Tensor]:
    model, batch = small_model(device, **fuser), small_batches(device)[0]
    loss = model.response_loss(batch)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.fuser.parameters() if p.grad is not None])
    tokens = model.generate(batch.prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return {name: t.detach().cpu().float() for name, t in (("loss", loss), ("gradient", gradient), ("tokens", tokens))}


def alone_equals_batch(day: Day, mode: str) -> Result:
    """An example alone has the same loss and answer as in a padded batch."""
    model, batch = small_model(day.device, fusion_mode=mode), small_batches(day.device)[0]
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        together, answers = model.response_loss(batch), model.generate(batch.prompt, **kwargs)[:, -6:]
        alone = [_row(batch, row) for row in range(len(batch))]
        losses = [model.response_loss(one) for one in alone]
        differing = [n for n, one in enumerate(alone) if _differs(model, one, answers[n], kwargs)]
    assert not differing, f"the answers to examples {differing} differ"
    return _within({"loss": float((sum(losses) - together).abs() / together)}, 1e-5)


def _row(batch: TrainingBatch, row: int) -> TrainingBatch:
    """One example without its padding."""
    prompt = batch.prompt.select([row])
    begin = int((prompt.receiver.mask == 0).sum())
    ids, mask = batch.response_ids[[row]], batch.response_mask[[row]]
    end = int(mask.sum())
    return TrainingBatch(PromptBatch.shared(prompt.receiver.input_ids[:, begin:]), ids[:, :end], mask[:, :end])


def _differs(model: C2CModel, batch: TrainingBatch, expected: Tensor, kwargs: dict[str, Any]) -> bool:
    return not torch.equal(model.generate(batch.prompt, **kwargs)[0, -6:], expected)


def attention(day: Day, name: str) -> Result:
    """Another attention implementation of transformers gives the loss of sdpa."""
    is_flash = name.startswith("flash")
    if is_flash and not (day.is_cuda and is_flash_attn_2_available()):
        raise Skipped("flash_attn is not installed, or there is no GPU")
    losses = {used: _loss(day, used, "bfloat16" if is_flash else "float32") for used in ("sdpa", name)}
    return _within({"loss": abs(losses[name] / losses["sdpa"] - 1)}, BF16 if is_flash else 1e-5)


def dtype_near_float32(day: Day, dtype: str) -> Result:
    """Language models in 16 bits give nearly the loss of float32."""
    return _within({"loss": abs(_loss(day, "sdpa", dtype) / _loss(day, "sdpa", "float32") - 1)}, BF16)


@torch.no_grad()
def _loss(day: Day, attention_name: str, dtype: str) -> float:
    model = small_model(day.device, attention=attention_name)
    for lm in (model.receiver, *model.sharers):
        lm.model.to(getattr(torch, dtype))  # random weights that are drawn in 16 bits would be other weights
    return float(model.response_loss(small_batches(day.device)[0]))
