"""The receiver's loss on the responses of a batch, row by row, on a given cache of the prompts."""

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix


def response_states(receiver: FrozenLM, batch: TrainingBatch, kv: LayerStack) -> Float[Tensor, "batch response width"]:
    """Last hidden states at the last prompt token and at all response tokens but the last.

    Args:
        receiver: the model.
        batch: prompts and responses, on its device.
        kv: a cache over all prompt tokens but the last.
    """
    return receiver.hidden_states(batch.prompt.receiver.append(batch.response_inputs), ResponsePrefix(kv))


@torch.no_grad()
def response_losses(receiver: FrozenLM, batch: TrainingBatch, kv: LayerStack) -> Float[Tensor, " batch"]:
    """Summed cross-entropy in nats of each row's supervised response tokens; arguments as of `response_states`."""
    states = response_states(receiver, batch, kv)
    rows = [
        receiver.cross_entropy(states[n : n + 1], batch.response_ids[n : n + 1], mask.nonzero()[:, 0])
        for n, mask in enumerate(batch.response_mask)
    ]
    return torch.stack(rows)
