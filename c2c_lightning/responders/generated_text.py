"""Decodes generated ids: text, length, confidence."""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import end_tokens, padding, setting
from c2c_lightning.responders.base import Answer


class ChosenLogProbabilities(LogitsProcessor):
    """Records the log-probability of each token that `generate` chose, keeping one step of logits at a time.

    `output_scores` would keep all of them: a gigabyte for 64 tokens of a large vocabulary. For greedy search and
    sampling, not for beams.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the last of `input_ids` (batch, tokens), and return the next scores (batch, vocab) unchanged."""
        self._record(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        return scores

    def _record(self, chosen: Tensor) -> None:
        # A token is known one call after its scores, since sampling follows the processors.
        if self._last is not None:
            self._steps.append(self._last.gather(1, chosen[:, None]))

    def finish(self, new_ids: Tensor) -> Tensor:
        """All log-probabilities, (batch, new), once generation is over."""
        self._record(new_ids[:, -1])
        self._last = None
        return torch.cat(self._steps, 1)


def decode_answers(
    lm: FrozenLM, new_ids: Tensor, kwargs: dict[str, Any], recorder: ChosenLogProbabilities | None = None
) -> list[Answer]:
    """Answers from ids (batch, new), which are padded after the end that the model or `kwargs` sets."""
    ends = end_tokens(lm, kwargs)
    stops = kwargs.get("stopping_criteria") or setting(lm, kwargs, "stop_strings")
    # Rows that such a criterion ends are padded without an end token.
    pad = padding(lm, kwargs) if stops else None
    log_probabilities = None if recorder is None else recorder.finish(new_ids)
    tokenizer: Any = lm.tokenizer
    answers = []
    for row, ids in enumerate(new_ids.tolist()):
        # The padding token may be the end token, so the length is that of the first end token.
        width = max((n + 1 for n, token in enumerate(ids) if token != pad), default=0)
        length = next((n + 1 for n, token in enumerate(ids) if token in ends), width)
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        mean = None if log_probabilities is None else float(log_probabilities[row, :length].mean())
        answers.append(Answer(text, length, mean))
    return answers
