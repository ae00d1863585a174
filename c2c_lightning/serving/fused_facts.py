"""Measures one row of a fused batch: tokens and bytes that crossed, gates, and the change of each fused token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.data.batch import SharerTokens
from c2c_lightning.fuser.fuser import SharerFuser
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fused_prompt import FusedPrompt


def fused_facts(model: C2CModel, fused: FusedPrompt, row: int, is_detailed: bool) -> dict[str, Any]:
    """The facts of one answer's prompt.

    Args:
        model: the fused model.
        fused: the caches of a batch of prompts.
        row: the row of the answer.
        is_detailed: whether gates and fused tokens are reported.
    """
    parts = list(zip(model.fuser.sharers, fused.prompt.sharers, fused.sharer_kv, strict=True))
    active = [(fuser, tokens, kv) for fuser, tokens, kv in parts if kv is not None]
    fused_columns = _fused_columns([tokens for _, tokens, _ in active], row)
    facts: dict[str, Any] = {
        "sharer_tokens": sum(int(tokens.mask[row].sum()) for _, tokens, _ in active),
        "fused_tokens": len(fused_columns),
        "fused_bytes": sum(_num_bytes(fuser, tokens, kv, row) for fuser, tokens, kv in active),
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


def _num_bytes(fuser: SharerFuser, tokens: SharerTokens, kv: LayerStack, row: int) -> int:
    """Bytes of the sharer's entries up to the last one that is fused, in the layers that are fused."""
    first = int(tokens.mask[row].argmax())
    num_tokens = max(0, min(int(tokens.index[row].max()) + 1, kv[0].num_tokens if kv else 0) - first)
    layers = {layer for layer in fuser.layer_map if layer is not None}
    return num_tokens * sum(_token_bytes(kv[n].keys) + _token_bytes(kv[n].values) for n in layers)


def _token_bytes(entries: Tensor) -> int:
    _, heads, _, width = entries.shape
    return heads * width * entries.element_size()


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
