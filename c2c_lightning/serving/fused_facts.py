"""Measures one row of a fused batch: tokens and bytes that crossed, gates, and the change of each fused token."""

from collections.abc import Sequence
from typing import Any

import torch

from c2c_lightning.data.batch import SharerTokens
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.cache_exchange import prompt_bytes
from c2c_lightning.model.fused_prompt import FusedPrompt


def fused_facts(model: C2CModel, fused: FusedPrompt, row: int, is_detailed: bool) -> dict[str, Any]:
    """The facts of one answer's prompt.

    Args:
        model: the fused model.
        fused: the caches of a batch of prompts.
        row: the row of the answer.
        is_detailed: whether gates and fused tokens are reported.
    """
    parts = enumerate(zip(fused.prompt.sharers, fused.sharer_kv, strict=True))
    active = [(n, tokens) for n, (tokens, kv) in parts if kv is not None]
    fused_columns = _fused_columns([tokens for _, tokens in active], row)
    facts: dict[str, Any] = {
        "sharer_tokens": sum(int(tokens.mask[row].sum()) for _, tokens in active),
        "fused_tokens": len(fused_columns),
        "fused_bytes": round(sum(float(prompt_bytes(model, fused.prompt, n)[row]) for n, _ in active)),
    }
    if fused.missing:
        facts["missing_sharers"] = list(fused.missing)
    if is_detailed:
        facts |= {"gates": gate_table(model), "tokens": _changes(model, fused, row, fused_columns)}
    return facts


def gate_table(model: C2CModel) -> list[dict[str, list[bool | None]]]:
    """For each sharer whether the gate of each receiver layer is open, for keys and values; None without a gate."""
    logits = model.fuser.gate_logits().tolist()
    names = ("keys", "values")
    return [dict(zip(names, [[_is_open(x) for x in part] for part in sharer], strict=True)) for sharer in logits]


def _is_open(logit: float) -> bool | None:
    return None if logit != logit else logit > 0


def _fused_columns(sharers: Sequence[SharerTokens], row: int) -> list[int]:
    if not sharers:
        return []
    columns: list[int] = torch.stack([tokens.index[row] >= 0 for tokens in sharers]).any(0).nonzero()[:, 0].tolist()
    return columns


def _changes(model: C2CModel, fused: FusedPrompt, row: int, columns: Sequence[int]) -> list[dict[str, Any]]:
    """Text of each fused token, and the norm of its residual relative to that of its own entries, over all layers."""
    ids = fused.prompt.receiver.input_ids[row].tolist()
    own = torch.zeros_like(fused.unfused_kv[0].keys[row, 0, :, 0], dtype=torch.float32)
    residual = torch.zeros_like(own)
    for before, after in zip(fused.unfused_kv, fused.fused_kv, strict=True):
        for old, new in ((before.keys[row], after.keys[row]), (before.values[row], after.values[row])):
            own = own + old.float().square().sum((0, 2))
            residual = residual + (new.float() - old.float()).square().sum((0, 2))
    changes = (residual / own.clamp(min=1e-30)).sqrt().tolist()
    tokenizer: Any = model.receiver.tokenizer
    return [{"text": tokenizer.decode([ids[n]]), "change": round(changes[n], 4)} for n in columns]
