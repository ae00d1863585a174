"""Output heads of language models: the fast one where it is exact, else the model's own code."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig, Llama4TextConfig

from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.output_head import ModelHead, output_head, transformer_body
from c2c_lightning.ops.chunked_cross_entropy import LinearHead
from tests.tiny import FAMILIES, tiny_model, tiny_pair

SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def llama4() -> Any:
    own = {"intermediate_size_mlp": 48, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    return AutoModelForCausalLM.from_config(Llama4TextConfig(**SIZES, **own)).eval()


def scaled(config: type, **own: float) -> Any:
    return AutoModelForCausalLM.from_config(config(**SIZES, **own)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_a_linear_head(family: str) -> None:
    assert isinstance(output_head(tiny_model(family)), LinearHead)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: scaled(CohereConfig, logit_scale=0.25), ModelHead),
        (lambda: scaled(GraniteConfig, logits_scaling=3.0), ModelHead),
        (llama4, LinearHead),
    ],
    ids=["cohere", "granite", "llama4"],
)
def test_logits_and_loss_are_the_models_own(make: Any, kind: type) -> None:
    model = make()
    head, ids = output_head(model), torch.randint(3, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    assert isinstance(head, kind)
    hidden = transformer_body(model)(input_ids=ids, use_cache=False).last_hidden_state.detach().requires_grad_()
    expected = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(head.logits(hidden), expected)
    loss = head.summed_loss(hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    plain = torch.nn.functional.cross_entropy(
        head.logits(hidden)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(loss, plain)
    ours, theirs = (torch.autograd.grad(value, hidden)[0] for value in (loss, plain))
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_the_head_of_a_frozen_model_multiplies_whole_batches() -> None:
    """A strided view of last tokens is multiplied row by row in bfloat16: 240 times slower at SmolLM2's size."""
    model, tokenizer = tiny_pair()
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    expected = model(input_ids=ids, logits_to_keep=1).logits
    load_frozen((model, tokenizer))
    given: list[bool] = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: given.append(args[0].is_contiguous()))
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=1).logits, expected)
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, eos_token_id=None)
    assert given == [True] * 3
