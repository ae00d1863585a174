"""Models whose own code changes the attention mask run padded batches."""

import torch

from benchmarks.family_matrix import checks
from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.ops.ragged_attention import supports_ragged_attention
from c2c_lightning.ops.ragged_probe import runs_ragged


def test_a_model_that_computes_with_its_mask_runs_padded_batches() -> None:
    doge = LMClass("DogeForCausalLM").build()
    assert supports_ragged_attention(doge)
    assert not runs_ragged(doge, 4)
    model = checks.fused_pair(checks.frozen(doge), checks.frozen(checks.partner()), "prefill")
    checks.alone_is_as_in_a_batch(model, checks.generate(model, checks.prompts()))


def test_wrong_entries_are_noticed() -> None:
    llama = checks.partner()
    assert runs_ragged(llama, 3)
    llama.model.layers[1].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "hidden_states": kwargs["hidden_states"].cumsum(1)}),
        with_kwargs=True,
    )
    with torch.no_grad():
        assert not runs_ragged(llama, 3)
