"""A probe of a loaded model: whether its cache has the properties that fusion relies on.

A few passes over four tokens compare cache entries that must be equal. They find bidirectional encoders, positions that
count padding, tokens that a model adds by itself, and code that does not continue from a cache, whatever the class is
called.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.continuation import ignores_states, prefill_by_token
from c2c_lightning.kv.geometry import KVGeometry, probe_geometry
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.kv.refusals import refusal

NUM_TOKENS = 4
TOLERANCE = {torch.float64: 0.01, torch.float32: 0.01}
"""Largest mean relative difference of entries that are equal but for the order of sums."""

HALF_TOLERANCE, CAUSAL_TOLERANCE = 0.1, 0.02
"""The same in half precision, and for rows of one batch, whose sums have one order."""

CROSS_ATTENTION = re.compile(r"(encoder_attn|crossattention|encdec_attn)(\.|$)")
"""Names of modules that attend to the output of an encoder."""


def probe_cache(model: nn.Module, name: str) -> KVGeometry:
    """The cache shapes of a loaded language model whose cache can be fused.

    Args:
        model: a transformers causal LM with weights.
        name: its name in errors.

    Raises:
        UnsupportedModelError: it is not a causal decoder, or its cache cannot be continued; the message says which
            property does not hold.
    """
    config: Any = model.config
    for module, _ in model.named_modules():
        if CROSS_ATTENTION.search(module):
            reason = f"its layers attend to the output of an encoder (`{module}`): it is the decoder of another model"
            raise refusal(name, config, reason)
    with torch.no_grad(), _named_failures(config, name):
        geometry = probe_geometry(model, name)
        problem = None if next(model.parameters()).is_meta else _problem(model, geometry)
    if problem:
        raise refusal(name, config, problem)
    return geometry


@contextmanager
def _named_failures(config: Any, name: str) -> Iterator[None]:
    """Errors of a model's own code as refusals."""
    try:
        yield
    except (UnsupportedModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise refusal(
            name,
            config,
            f"its code does not run on tokens, positions and a cache alone ({type(error).__name__}: {cause})",
        ) from error


def _problem(model: Any, geometry: KVGeometry) -> str | None:
    """The first property of the cache that does not hold."""
    device, size = next(model.parameters()).device, model.get_input_embeddings().weight.shape[0]
    a, b, c, d, e = (torch.arange(5, 10) % size).tolist()
    ids = torch.tensor([[a, b, c, d], [a, b, c, e], [a, a, b, c]], device=device)
    mask = torch.ones_like(ids)
    mask[2, 0] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    layout = CacheLayout.of(model.config)
    prefill = Prefill(model, geometry.num_layers, layout=layout)
    batch = prefill.run(ids, mask, positions)
    if batch[0].num_tokens != NUM_TOKENS:
        return f"its cache holds {batch[0].num_tokens} entries for {NUM_TOKENS} tokens"
    limit = TOLERANCE.get(batch[0].keys.dtype, HALF_TOLERANCE)
    if entry_difference(_part(batch, 0, 0, 3), _part(batch, 1, 0, 3)) > CAUSAL_TOLERANCE:
        return "the entries of a token depend on later tokens: its attention is not causal"
    if entry_difference(_part(batch, 0, 0, 3), _part(batch, 2, 1, 4)) > limit:
        return "the entries of a token depend on the padding before it"
    own = prefill.run(ids[:1], mask[:1], None)
    if entry_difference(_part(batch, 0, 0, 4), own) > limit:
        return "its positions are not counted from zero"
    first = prefill.run(ids[2:, :2], mask[2:, :2], positions[2:, :2])
    continued = prefill_by_token if ignores_states(model, layout) else Prefill.run
    rest = continued(prefill, ids[2:, 2:], mask[2:], positions[2:, 2:], first)
    if entry_difference(_part(batch, 2, 2, 4), rest) > limit:
        return "a pass that continues from a padded cache gives other entries than one pass over all tokens"
    return None


def _part(kv: LayerStack, row: int, begin: int, end: int) -> LayerStack:
    return [layer.rows(torch.tensor([row])).tokens(begin, end) for layer in kv]


def entry_difference(one: LayerStack, other: LayerStack) -> float:
    """Mean relative difference of the entries of two caches of the same tokens; infinite for other shapes."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in ((x.keys, y.keys), (x.values, y.values))]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return float(torch.stack([_relative(a, b) for a, b in pairs]).mean())


def _relative(
    a: Float[Tensor, "batch kv_heads tokens dim"], b: Float[Tensor, "batch kv_heads tokens dim"]
) -> Float[Tensor, ""]:
    """Mean over tokens of the difference of two entries in units of their length, at most 1."""
    a, b = a.transpose(1, 2).flatten(2).float(), b.transpose(1, 2).flatten(2).float()
    scale = (a.norm(dim=-1) + b.norm(dim=-1)) / 2
    relative: Tensor = (a - b).norm(dim=-1) / scale.clamp(min=1e-30)
    return relative.clamp(max=1).mean()
