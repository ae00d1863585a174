"""How well a fused model gives the responses of rows, teacher-forced."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.kv.layer import SharerKV
from c2c_lightning.model.c2c import C2CModel


@dataclass(frozen=True, order=True)
class RowScore:
    """How well a fused model gives the responses of some rows; the greater, the better.

    Attributes:
        accuracy: share of rows whose response is the most probable one at every token.
        log_likelihood: mean log-probability of a response token, in nats; decides between equal accuracies.
    """

    accuracy: float
    log_likelihood: float


@dataclass(frozen=True)
class RowScores:
    """The scores of single rows, in order.

    Attributes:
        right: whether greedy decoding gives the response exactly.
        log_likelihood: log-probability of the response, in nats.
        tokens: response tokens.
    """

    right: list[bool] = field(default_factory=list)
    log_likelihood: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def __add__(self, other: "RowScores") -> "RowScores":
        """These rows and those of another batch."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return RowScores(*([*mine, *theirs] for mine, theirs in pairs))

    @property
    def mean(self) -> RowScore:
        """Over the rows, and over their tokens."""
        total, tokens = sum(self.log_likelihood), sum(self.tokens)
        return RowScore(sum(self.right) / max(len(self.right), 1), total / max(tokens, 1))


@torch.no_grad()
def score_batch(
    model: C2CModel,
    batch: TrainingBatch,
    sharer_kv: SharerKV | None = None,
    active_sharers: Sequence[int] | None = None,
) -> RowScores:
    """The scores of one batch.

    Args:
        model: the fused model, in evaluation mode.
        batch: prompts with their responses.
        sharer_kv: the sharers' caches over the prompts, as from `prefill_sharers`; default they are computed.
        active_sharers: indices of the sharers that take part, default all.
    """
    batch = batch.to(model.receiver.device)
    states = model.response_states(batch.prompt, batch.response_inputs, active_sharers, sharer_kv)
    mask, ids = batch.response_mask, batch.response_ids
    # Supervised tokens only: logits of padding would need (batch, response, vocabulary) for nothing.
    logits = model.receiver.head.logits(states[mask]).float()
    chosen = logits.log_softmax(-1).gather(1, ids[mask][:, None])[:, 0]
    wrong = logits.argmax(-1) != ids[mask]
    row = mask.nonzero()[:, 0]
    zeros = torch.zeros(len(batch), dtype=torch.double, device=row.device)
    sums = zeros.index_add(0, row, chosen.double())
    mistakes = zeros.index_add(0, row, wrong.double())
    return RowScores((mistakes == 0).tolist(), sums.tolist(), mask.sum(1).tolist())


def row_score(model: C2CModel, batches: Iterable[TrainingBatch]) -> RowScore:
    """The score of a fused model on all rows."""
    scores = RowScores()
    for batch in batches:
        scores = scores + score_batch(model, batch)
    return scores.mean
