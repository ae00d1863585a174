"""Layer alignment by the answer: the upper half of the receiver reads the sharer layer that knows the next token best.

For each sharer layer a linear map is fitted in closed form, from its values at a token to the receiver's output
embedding of the response token that follows, and compared on held-out tokens. So the layer is found in which the sharer
has resolved what the response says, for example from a document that the receiver does not read.

Axes: F response tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.errors import FuserConfigError, UnsupportedModelError
from c2c_lightning.fuser.ridge_regression import probe_scores
from c2c_lightning.model.decode_cache import with_response
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.layer_probe import LEAST_TOKENS, PROBE_TOKENS, REGULARISATION, ProbedLayers


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
    values: list[dict[int, list[Tensor]]] = [defaultdict(list) for _ in sharers]
    targets: list[Tensor] = []
    count = 0
    for batch in batches:
        batch = batch.to(receiver.device)
        text = with_response(receiver, sharers, batch.prompt, batch.response_inputs)
        row, place = batch.response_mask.nonzero(as_tuple=True)
        for sharer, tokens, collected in zip(sharers, text.sharers, values, strict=True):
            width = tokens.input_ids.shape[1] - batch.response_ids.shape[1]
            for number, layer in enumerate(sharer.prefill_tokens(tokens, width + batch.response_ids.shape[1] - 1)):
                collected[number].append(layer.values[row, :, width - 1 + place].flatten(1).float().cpu())
        targets.append(head.weight[batch.response_ids[row, place]].float().cpu())
        count += len(row)
        done(len(row))
        if count >= num_tokens:
            break
    if count < LEAST_TOKENS:
        raise FuserConfigError(
            f"`layer_alignment: answer` compares layers on response tokens, but the training data has {count}, fewer "
            f"than {LEAST_TOKENS}. Give more rows, or use `upper_half`."
        )
    return [_best(len(receiver.geometry.layers), torch.cat(targets), layers) for layers in values]


def _best(num_receiver_layers: int, targets: Tensor, layers: dict[int, list[Tensor]]) -> ProbedLayers:
    """The best sharer layer, the lower one of equal ones, for the receiver's upper half."""
    scores = torch.cat([probe_scores(torch.cat(v)[None], targets[None], REGULARISATION) for v in layers.values()], 1)
    first = num_receiver_layers // 2
    best = int(scores.argmax())
    layer_map = [None if n < first else best for n in range(num_receiver_layers)]
    return ProbedLayers(layer_map, scores.expand(num_receiver_layers, -1))
