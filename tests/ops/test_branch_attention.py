"""Branches of shared prefixes, against one pass for each branch behind a copy of its own cache."""

import pytest
import torch

from c2c_lightning.kv.cache import prefix_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.branch_states import branch_states
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.output_head import transformer_body
from c2c_lightning.ops.branch_attention import Branches
from tests.tiny import tiny_pair

# Together with a branch not longer than the windows of tiny models: branches are masked causally alone.
FIRST, SECOND, OTHER = (torch.arange(length)[None] + 7 for length in (3, 4, 2))
BRANCHES = [torch.tensor(ids) for ids in ([3, 4], [3, 5, 6], [8], [9, 3, 4, 5])]
"""New tokens: three branches of the first group, which has two prefixes, and one of the second."""


def prefixes_of(lm: FrozenLM) -> list[LayerStack]:
    return [lm.prefill(ids, None, 3 + torch.arange(ids.shape[1])[None]) for ids in (FIRST, SECOND, OTHER)]


def groups_of(lm: FrozenLM) -> list[Branches]:
    """Of the first group two branches have the first prefix, one the second; the other group has one prefix."""
    layers = range(lm.geometry.num_layers)
    first = Branches((3, 4), (2, 3, 1), tuple((0, 1, 0) for _ in layers))
    return [first, Branches((2,), (4,), tuple((0,) for _ in layers))]


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "phi3", "gemma3", "olmo2"])
def test_states_are_those_of_one_pass_for_each_branch(family: str, attention: str) -> None:
    lm = load_frozen(tiny_pair(family))
    lm.model.set_attn_implementation(attention)
    assert lm.supports_ragged
    prefixes, groups = prefixes_of(lm), groups_of(lm)
    positions = [20 + 5 * n + torch.arange(len(ids)) for n, ids in enumerate(BRANCHES)]
    found = branch_states(lm, torch.cat(BRANCHES), torch.cat(positions), prefixes, groups)
    first, second, other = prefixes
    parts = zip((first, second, first, other), BRANCHES, positions, strict=True)
    expected = torch.cat([alone(lm, *part) for part in parts])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert lm.model.config.get_text_config()._attn_implementation == attention


@torch.no_grad()
def test_each_layer_of_a_branch_has_its_own_prefix() -> None:
    lm = load_frozen(tiny_pair("qwen3"))
    prefixes = [lm.prefill(ids, None, torch.arange(3)[None]) for ids in (FIRST, SECOND[:, 1:])]
    ids, positions, layers = torch.tensor([3, 4]), torch.tensor([9, 10]), range(lm.geometry.num_layers)
    for mixture in ([0] * len(layers), [1] * len(layers), [layer % 2 for layer in layers]):
        group = Branches((3, 3), (2, 2), tuple((choice, 0) for choice in mixture))
        found = branch_states(lm, ids.repeat(2), positions.repeat(2), prefixes, [group])
        expected = alone(lm, [prefixes[choice][layer] for layer, choice in enumerate(mixture)], ids, positions)
        torch.testing.assert_close(found[:2], expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(found[2:], alone(lm, prefixes[0], ids, positions), atol=2e-5, rtol=1e-4)


def alone(lm: FrozenLM, kv: LayerStack, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    body = transformer_body(lm.model)
    return body(
        input_ids=ids[None], position_ids=positions[None], past_key_values=prefix_cache(kv), use_cache=False
    ).last_hidden_state[0]
