"""Layer alignment by the answer: the upper half of the receiver reads the sharer layer that knows the next token best.

For each sharer layer a linear map is fitted in closed form, from its values at a token to the receiver's output
embedding of the response token that follows, and compared on held-out tokens. So the layer is found in which the sharer
has resolved what the response says, for example from a document that the receiver does not read.

Axes: F supervised response tokens, H KV heads, D head width.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.token_batch import TokenBatch
from c2c_lightning.errors import FuserConfigError, UnsupportedModelError
from c2c_lightning.fuser.ridge_regression import probe_scores
from c2c_lightning.model.decode_cache import with_response
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.layer_probe import LEAST_TOKENS, PROBE_TOKENS, REGULARISATION, ProbedLayers
from c2c_lightning.model.shared_prefix import prefill_prompts


@torch.no_grad()
def probe_answers(
    receiver: FrozenLM,
    sharers: Sequence[FrozenLM],
    batches: Iterable[TrainingBatch],
    num_tokens: int = PROBE_TOKENS,
    done: Callable[[int], None] = lambda tokens: None,
) -> list[ProbedLayers]:
    """Compare the layers of each sharer.

    Args:
        receiver: the receiver.
        sharers: the sharers.
        batches: training batches, as many as are needed.
        num_tokens: response tokens that are enough.
        done: called with the number of response tokens of each batch.

    Raises:
        FuserConfigError: too few response tokens.
        UnsupportedModelError: a receiver without output embeddings.
    """
    head = receiver.model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(
            f"{type(receiver.model).__name__} names no output embeddings, which `layer_alignment: answer` predicts. "
            "Use `upper_half`, or give `layer_map`."
        )
    values: list[list[list[Tensor]]] = [[] for _ in sharers]
    targets: list[Tensor] = []
    for batch in batches:
        batch = batch.to(receiver.device)
        text = with_response(receiver, sharers, batch.prompt, batch.response_inputs)
        for sharer, tokens, collected in zip(sharers, text.sharers, values, strict=True):
            collected.append(_values_before(sharer, tokens, batch.response_mask))
        targets.append(head.weight[batch.response_ids[batch.response_mask]].float().cpu())
        done(len(targets[-1]))
        if sum(map(len, targets)) >= num_tokens:
            break
    count = sum(map(len, targets))
    if count < LEAST_TOKENS:
        raise FuserConfigError(
            f"`layer_alignment: answer` compares layers on response tokens, but the training data has {count}, fewer "
            f"than {LEAST_TOKENS}. Give more rows, or use `upper_half`."
        )
    return [_best(len(receiver.geometry.layers), torch.cat(targets), collected) for collected in values]


def _values_before(sharer: FrozenLM, tokens: TokenBatch, response: Bool[Tensor, "batch response"]) -> list[Tensor]:
    """For each layer the values (F, H * D) of the tokens in front of the supervised ones of the response.

    The tokens are prompt, response without its last token, and one column that is never run.
    """
    rows, places = response.nonzero(as_tuple=True)
    end = tokens.input_ids.shape[1] - 1
    columns = end - response.shape[1] + places
    return [layer.values[rows, :, columns].flatten(1).float().cpu() for layer in prefill_prompts(sharer, tokens, end)]


def _best(num_receiver_layers: int, targets: Tensor, values: Sequence[Sequence[Tensor]]) -> ProbedLayers:
    """The best sharer layer, the lower one of equal ones, for the receiver's upper half; values by batch and layer."""
    layers = [torch.cat(parts)[None] for parts in zip(*values, strict=True)]
    scores = torch.cat([probe_scores(layer, targets[None], REGULARISATION) for layer in layers], 1)
    first, best = num_receiver_layers // 2, int(scores.argmax())
    layer_map = [None if n < first else best for n in range(num_receiver_layers)]
    return ProbedLayers(layer_map, scores.expand(num_receiver_layers, -1))
