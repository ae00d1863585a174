"""Settings of `generate` that differ from row to row of one batch: sampling, log-probabilities, ends."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria, TemperatureLogitsWarper, TopPLogitsWarper

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.locks import let_others_run
from c2c_lightning.serving.answer_row import AnswerRow, TokenLogProbs


class LogProbRecorder(LogitsProcessor):
    """Keeps the log-probabilities of one step, before temperature and `top_p`, for rows that report them."""

    def __init__(self, rows: Sequence[AnswerRow]) -> None:
        self.rows = [number for number, row in enumerate(rows) if row.settings.top_logprobs is not None]
        self.counts = {number: rows[number].settings.top_logprobs or 0 for number in self.rows}
        self._last: dict[int, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (batch, vocab), unchanged."""
        self._last = {number: scores[number].float().log_softmax(-1) for number in self.rows}
        return scores

    def of(self, number: int, token: int) -> TokenLogProbs | None:
        """The log-probabilities of a row's newest token; None for a row that does not report them."""
        if number not in self._last:
            return None
        values = self._last[number]
        top = values.topk(min(self.counts[number], len(values)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return TokenLogProbs(token, float(values[token]), tuple(pairs))


class RowSampling(LogitsProcessor):
    """Samples in rows with a temperature, each with a generator of its own; the other rows stay greedy.

    Gumbel noise on the scores makes the largest one a sample of their softmax. `generate` then takes the largest score
    in every row, so that greedy rows and rows with different temperatures share a batch, and a seeded row draws the
    same numbers alone and in any batch.
    """

    def __init__(self, rows: Sequence[AnswerRow]) -> None:
        self.rows = [(number, _warpers(row), _generator(row)) for number, row in enumerate(rows) if _samples(row)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (batch, vocab), with noise in sampled rows."""
        for number, warpers, generator in self.rows:
            one = scores[number : number + 1]
            for warper in warpers:
                one = warper(input_ids[number : number + 1], one)
            # On the CPU and in double precision: all devices draw the same numbers, and none is 0.
            uniform = torch.rand(one.shape, generator=generator, dtype=torch.float64).clamp_(min=1e-300)
            scores[number] = (one - uniform.log().neg().log().to(one))[0]
        return scores


def _samples(row: AnswerRow) -> bool:
    return row.settings.temperature > 0


def _warpers(row: AnswerRow) -> list[LogitsProcessor]:
    settings = row.settings
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(settings.temperature)]
    return warpers if settings.top_p >= 1 else [*warpers, TopPLogitsWarper(settings.top_p)]


def _generator(row: AnswerRow) -> torch.Generator:
    generator = torch.Generator()
    if row.settings.seed is None:
        generator.seed()
    else:
        # The answers of one request differ.
        generator.manual_seed((row.settings.seed + row.number) % 2**63)
    return generator


class RowEnds(StoppingCriteria):
    """Hands each row its newest token and ends it: end token, stop string, length, cancellation, time.

    Between two tokens other threads get their turn on the models.
    """

    def __init__(
        self,
        rows: Sequence[AnswerRow],
        end_tokens: Collection[int],
        recorder: LogProbRecorder,
        models: Sequence[FrozenLM],
    ) -> None:
        self.rows, self.end_tokens, self.recorder, self.models = rows, frozenset(end_tokens), recorder, models

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Whether each row has ended, (batch,)."""
        for number, token in enumerate(input_ids[:, -1].tolist()):
            row = self.rows[number]
            if not row.is_done:
                row.push(token, token in self.end_tokens, self.recorder.of(number, token))
        done = [row.is_done for row in self.rows]
        if not all(done):
            let_others_run(self.models)
        return torch.tensor(done, device=input_ids.device)
