"""Whether a model's cache can be enriched: an entry for each token, and positions that survive a deletion."""

import torch

from c2c_lightning.errors import PromptError, UnsupportedModelError
from c2c_lightning.kv.cache_probe import HALF_TOLERANCE, TOLERANCE, entry_difference
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM

_NUM_TOKENS = 4


def check_enrichable(lm: FrozenLM, num_tokens: int) -> None:
    """Refuse a model whose cache cannot be enriched by prompts of at most `num_tokens` tokens.

    Raises:
        UnsupportedModelError: it runs in another process, it keeps states besides entries, or its attention does not
            depend on differences of positions.
        PromptError: the prompts are longer than its context or its attention window.
    """
    if not lm.can_generate:
        raise UnsupportedModelError(f"the model at {lm.spec.url} gives caches only and cannot answer. Load it here.")
    if lm.layout is not None and lm.layout.has_states:
        raise UnsupportedModelError(
            f"{lm.spec.path} has recurrent or convolution layers, whose state mixes all tokens: the entries of the "
            "shots cannot be deleted from it. Use a model in which all layers are attention."
        )
    lm.limits.check_length(num_tokens)
    window = lm.limits.window
    if window is not None and num_tokens > window:
        raise PromptError(
            f"a few-shot prompt has {num_tokens} tokens, but {lm.spec.path} has attention windows of {window}, which "
            "count entries: without the shots' they would reach further back. Use fewer shots or shorter questions."
        )
    _check_positions(lm, num_tokens)


@torch.no_grad()
def _check_positions(lm: FrozenLM, num_tokens: int) -> None:
    """Compare the entries of a few tokens at other positions; keys are left out, which are rotated themselves."""
    plain = torch.arange(_NUM_TOKENS)
    # Not beyond the last position of the longest prompt, which is all that the experiment needs.
    shift = max(num_tokens - _NUM_TOKENS, 1)
    first, moved, gap = (_unrotated(lm, plain + offset) for offset in (0, shift, (plain > 1) * shift))
    problem = ""
    if entry_difference(first, moved) > TOLERANCE.get(first[0].values.dtype, HALF_TOLERANCE):
        problem = "its attention depends on absolute positions"
    elif lm.geometry.num_layers > 1 and entry_difference(first, gap) == 0:
        problem = "its attention ignores the given positions"
    if problem:
        raise UnsupportedModelError(
            f"the cache of {lm.spec.path} cannot be enriched: {problem}, so that entries behind deleted ones cannot "
            "keep theirs. Use a model with rotary positions."
        )


def _unrotated(lm: FrozenLM, positions: torch.Tensor) -> LayerStack:
    """The entries of a few tokens, with the part that is not rotated in place of keys and of values."""
    ids = (torch.arange(_NUM_TOKENS) + 5)[None] % lm.limits.num_embeddings
    entries = lm.prefill(ids, None, positions[None])
    parts = [kv.keys if g.is_latent else kv.values for kv, g in zip(entries, lm.geometry.layers, strict=True)]
    return [LayerKV(part, part) for part in parts]
