"""Decodes generated ids: text, length, confidence."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import setting


@dataclass(frozen=True)
class Written:
    """One generated text.

    Attributes:
        text: without special tokens.
        num_tokens: tokens up to and including the end token.
        log_probability: mean log-probability of a token in nats, None if not recorded.
    """

    text: str
    num_tokens: int
    log_probability: float | None = None


class ChosenLogProbabilities(LogitsProcessor):
    """Records the log-probability of each token that `generate` chose, keeping one step of logits at a time.

    `output_scores` would keep all of them: a gigabyte for 64 tokens of a large vocabulary. For greedy search and
    sampling, not for beams.
    """

    def __init__(self) -> None:
        """Start without records."""
        self._last: Tensor | None = None
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the token that was chosen by the last scores, and pass the new scores on unchanged.

        Args:
            input_ids: (batch, tokens) so far.
            scores: (batch, vocab) of the next token.
        """
        self._record(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        return scores

    def _record(self, chosen: Tensor) -> None:
        if self._last is not None:
            self._steps.append(self._last.gather(1, chosen[:, None]))

    def finish(self, new_ids: Tensor) -> Tensor:
        """All log-probabilities, (batch, new), once generation is over."""
        self._record(new_ids[:, -1])
        self._last = None
        return torch.cat(self._steps, 1)


def read_written(
    lm: FrozenLM, new_ids: Tensor, kwargs: dict[str, Any], log_probabilities: Tensor | None = None
) -> list[Written]:
    """Texts of generated ids.

    Args:
        lm: the generating model.
        new_ids: (batch, new), padded after the end token.
        kwargs: arguments of `generate`, which may set other end tokens.
        log_probabilities: (batch, new), of each token.
    """
    ends = _end_tokens(setting(lm, kwargs, "eos_token_id"))
    tokenizer: Any = lm.tokenizer
    written = []
    for row, ids in enumerate(new_ids.tolist()):
        # The padding token may be the end token, so the length is that of the first end token.
        length = next((n + 1 for n, token in enumerate(ids) if token in ends), len(ids))
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        mean = None if log_probabilities is None else float(log_probabilities[row, :length].mean())
        written.append(Written(text, length, mean))
    return written


def _end_tokens(setting: int | Iterable[int] | None) -> set[int]:
    if setting is None:
        return set()
    return {setting} if isinstance(setting, int) else {int(token) for token in setting}
