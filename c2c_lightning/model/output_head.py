"""From a model's last hidden states to logits and losses."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.ops.chunked_cross_entropy import LinearHead, summed_loss


@runtime_checkable
class OutputHead(Protocol):
    """The part of a language model above its last hidden states."""

    def logits(self, hidden: Float[Tensor, "*rest width"]) -> Float[Tensor, "*rest vocab"]:
        """Logits at each hidden state."""
        ...

    def summed_loss(self, hidden: Float[Tensor, "tokens width"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, ""]:
        """Summed cross-entropy in nats."""
        ...


class ModelHead:
    """The output head as the model's own code computes it, for models whose head is not one linear map.

    The model runs one token, and a hook puts the given hidden states in the place of those of its body.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.body = model, transformer_body(model)

    def logits(self, hidden: Float[Tensor, "*rest width"]) -> Float[Tensor, "*rest vocab"]:
        """See `OutputHead.logits`."""

        def replace(module: nn.Module, args: Any, output: Any) -> Any:
            output["last_hidden_state"] = hidden.reshape(1, -1, hidden.shape[-1])
            return output

        handle = self.body.register_forward_hook(replace)
        try:
            # One token is the smallest pass that reaches the head.
            token = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
            logits: Tensor = self.model(input_ids=token, use_cache=False, logits_to_keep=0).logits
        finally:
            handle.remove()
        return logits.view(*hidden.shape[:-1], -1)

    def summed_loss(self, hidden: Float[Tensor, "tokens width"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, ""]:
        """See `OutputHead.summed_loss`."""
        return summed_loss(self.logits(hidden), targets)


def transformer_body(model: Any) -> Any:
    """The part of a causal language model below its output head.

    Raises:
        UnsupportedModelError: it cannot be identified.
    """
    lm = model.get_base_model() if hasattr(model, "peft_config") else model  # adapters are layers within the body
    body = lm.base_model if lm.base_model is not lm else lm.get_decoder()
    if body is lm:
        body = getattr(lm, "model", lm)
    if body is lm:
        raise UnsupportedModelError(
            f"{type(lm).__name__} has no body separate from its output head, so no loss can be computed. Use "
            "its text model."
        )
    return body


def fold_batches(model: Any) -> None:
    """Let the output head of a frozen model multiply whole batches, also where transformers gives it a strided view.

    It does for the last token of each prompt, `hidden[:, -1:]`. PyTorch folds the batch of such a view into one product
    only for weights that need a gradient; otherwise there is one product per row (bfloat16 on a CPU: 200 times slower).
    """
    linear = model.get_output_embeddings()
    if isinstance(linear, nn.Linear):
        linear.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].contiguous(), *args[1:])


def output_head(model: Any) -> OutputHead:
    """The fastest output head that gives the model's own logits, found by comparing them on two tokens."""
    lm = model.get_base_model() if hasattr(model, "peft_config") else model
    linear, config = lm.get_output_embeddings(), lm.config.get_text_config()
    if not isinstance(linear, nn.Linear) or not linear.weight.is_floating_point():
        return ModelHead(model)
    head = LinearHead(linear, getattr(config, "final_logit_softcapping", None), config.vocab_size)
    # Compared instead of read from the config: some families scale or cap their logits under names of their own.
    ids = torch.tensor([[1, 2]], device=next(lm.parameters()).device)
    with torch.no_grad():
        hidden = transformer_body(model)(input_ids=ids, use_cache=False).last_hidden_state
        expected = model(input_ids=ids, use_cache=False).logits
    return head if torch.allclose(head.logits(hidden), expected) else ModelHead(model)
