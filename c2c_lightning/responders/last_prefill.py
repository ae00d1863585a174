"""The sharers' caches of the last batch, for several controls of the same questions."""

import time

import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel


class LastPrefill:
    """Prefills the sharers of a model once for consecutive batches of the same prompts.

    An evaluation runs all controls on a batch before the next batch, and most of them read the same sharer caches.

    Attributes:
        seconds: wall time of the last prefill that was computed.
    """

    def __init__(self, model: C2CModel) -> None:
        self.model, self.seconds = model, 0.0
        self._prompt: PromptBatch | None = None
        self._kv: list[LayerStack | None] = []

    def prefill(self, prompt: PromptBatch) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt; callers must not change it in place."""
        if self._prompt is None or not self._is_last(prompt):
            # First: two batches are never held together.
            self.clear()
            start = time.perf_counter()
            self._kv = self.model.prefill_sharers(prompt)
            self.seconds, self._prompt = time.perf_counter() - start, prompt
        return list(self._kv)

    def clear(self) -> None:
        """Free the caches."""
        self._prompt, self._kv = None, []

    def _is_last(self, prompt: PromptBatch) -> bool:
        """Whether the sharers read the same tokens as in the last batch, as far as the receiver's tokens read them."""
        assert self._prompt is not None
        mode, last = self.model.mode, self._prompt
        if list(mode.num_sharer_tokens(prompt)) != list(mode.num_sharer_tokens(last)):
            return False
        pairs = zip(prompt.on_host.sharers, last.on_host.sharers, strict=True)
        return all(
            torch.equal(new.input_ids, old.input_ids)
            and torch.equal(new.mask, old.mask)
            and torch.equal(new.positions, old.positions)
            for new, old in pairs
        )
