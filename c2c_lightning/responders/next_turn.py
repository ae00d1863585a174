"""Ends answers where a base model begins the next turn."""

from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class NextTurn(StoppingCriteria):
    """Ends each row whose new text contains the beginning of another turn; for one call of `generate`.

    `stop_strings` of transformers would index the whole vocabulary in each call, seconds for 262,144 tokens.

    Args:
        tokenizer: of the model.
        text: with which a turn begins.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text
        self._begin: int | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """For each row whether it ends, (batch,)."""
        if self._begin is None:  # the first call follows the first new token
            self._begin = input_ids.shape[1] - 1
        texts = self.tokenizer.batch_decode(input_ids[:, self._begin :])
        return torch.tensor([self.text in text for text in texts], device=input_ids.device)
