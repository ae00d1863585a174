"""Kept caches of a model's receiver and sharers, and the parts of a training step that they replace.

A sharer's cache never depends on the fuser. The receiver's does from the end of a row's first fusion step on: later
tokens attend to fused entries. In mode `decode` no entry is computed on fused ones, so the clean caches over prompt and
response are kept too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.training.frozen_cache.kept_rows import receiver_rows, sharer_rows
from c2c_lightning.training.frozen_cache.model_prefills import ModelPrefills


@dataclass(frozen=True)
class FrozenPrefills:
    """Kept caches of the frozen models.

    Attributes:
        models: those of each sharer, of which the layers and tokens that the fuser reads are kept, and of the receiver,
            if its cache is not computed in every step.
        keeps_training_rows: whether rows of training steps are kept, not only those of validations.
    """

    models: Sequence[ModelPrefills]
    keeps_training_rows: bool = True

    def response_prefix(
        self, core: C2CCore, prompt: PromptBatch, response: TokenBatch, active_sharers: Sequence[int] | None = None
    ) -> ResponsePrefix:
        """As `C2CCore.response_prefix`."""
        keep = self.keeps_training_rows or not torch.is_grad_enabled()
        kept, active = _KeptCore(core, self, keep), core.active_sharers(prompt, active_sharers)
        sharer_kv = [kept.prompt_cache(prompt, n) if n in active else None for n in range(len(core.sharers))]
        return core.mode.response_prefix(kept, prompt, sharer_kv, response)

    def describe(self) -> str:
        """What was saved, in words."""
        parts = [f"{m.count.describe()} of {m.name}" for m in self.models]
        seconds = sum(model.count.saved_seconds for model in self.models)
        size = sum(model.store.num_bytes for model in self.models)
        saved = f"; about {seconds:,.0f} s of computing saved" if seconds else ""
        return f"reused for {' and '.join(parts)}{saved}; {size / 1e9:.2f} GB are kept"


@dataclass(frozen=True)
class _KeptCore:
    """A model whose prefills come from kept caches, for one batch; see `ResponseCore`."""

    core: C2CCore
    kept: FrozenPrefills
    keep: bool

    @property
    def receiver(self) -> FrozenLM:
        return self.core.receiver

    @property
    def sharers(self) -> Sequence[FrozenLM]:
        return self.core.sharers

    @property
    def fuser(self) -> Fuser:
        return self.core.fuser

    def fuse_prompt(self, prompt: PromptBatch, sharer_kv: SharerKV, start: PrefillState | None = None) -> PrefillState:
        receiver = self.kept.models[len(self.sharers) :]
        if receiver and (start is None or not start.num_tokens):
            start = self._receiver_start(prompt, receiver[0])
        return self.core.fuse_prompt(prompt, sharer_kv, start)

    def continue_sharers(self, text: PromptBatch, sharer_kv: SharerKV) -> list[LayerStack | None]:
        columns = text.plan.num_read_tokens
        return [
            None if kv is None else self._sharer_cache(text, number, False, columns[number])
            for number, kv in enumerate(sharer_kv)
        ]

    def prompt_cache(self, prompt: PromptBatch, number: int) -> LayerStack:
        """One sharer's cache over its prompt."""
        mode = self.core.mode
        if mode.fuses_response:
            # Only the caches over prompt and response are read: `continue_sharers` gives them as a whole.
            return self.sharers[number].empty_kv(len(prompt))
        return self._sharer_cache(prompt, number, mode.fuses_last_prompt_token, mode.num_sharer_tokens(prompt)[number])

    def _sharer_cache(self, prompt: PromptBatch, number: int, with_last: bool, columns: int) -> LayerStack:
        rows, wanted = sharer_rows(prompt, number, with_last)
        return self.kept.models[number].cache(rows, wanted, columns, self.keep)

    def _receiver_start(self, prompt: PromptBatch, receiver: ModelPrefills) -> PrefillState | None:
        """The receiver's cache up to the end of the first fusion step of the batch."""
        host = prompt.on_host
        steps = self.core.mode.plan(host, self.fuser.config)
        if not steps:
            return None
        rows, wanted = receiver_rows(host, steps)
        entries = receiver.cache(rows, wanted, steps[0].end, self.keep)
        return PrefillState(prompt.receiver, entries, entries, ())
