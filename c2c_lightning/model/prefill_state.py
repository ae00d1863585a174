"""The receiver's KV-cache while a batch of prompts is prefilled and fused."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerStack, SharerKV, append_kv
from c2c_lightning.model.frozen_lm import FrozenLM


@dataclass(frozen=True)
class PrefillState:
    """The receiver's cache over the first tokens of a batch of prompts.

    Attributes:
        tokens: the receiver's prompts, (batch, tokens).
        unfused_kv: entries as the receiver computed them, each on the fused entries of earlier steps.
        fused_kv: the same entries after their fusion step.
    """

    tokens: TokenBatch
    unfused_kv: LayerStack
    fused_kv: LayerStack

    @classmethod
    def empty(cls, receiver: FrozenLM, tokens: TokenBatch) -> Self:
        """The state before the first token."""
        empty = receiver.empty_kv(len(tokens.input_ids))
        return cls(tokens, empty, empty)

    @property
    def num_tokens(self) -> int:
        """Length of the cache in tokens, padding included."""
        return self.fused_kv[0].num_tokens

    def prefill(self, receiver: FrozenLM, until: int) -> Self:
        """The state after the receiver has processed its tokens up to column `until`.

        The autograd graph is kept only where it is needed: after fused entries that are being trained.
        """
        # All steps of mode `decode` end at one column, and a reused prefix may reach beyond a step.
        if until <= self.num_tokens:
            return self
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.fused_kv[0].keys.requires_grad):
            new = receiver.prefill_tokens(self.tokens, until, self.fused_kv)
        return replace(self, unfused_kv=append_kv(self.unfused_kv, new), fused_kv=append_kv(self.fused_kv, new))

    def fuse(self, fuser: Fuser, sharer_kv: SharerKV, step: FusionStep) -> Self:
        """The state with the tokens of a step fused (paper, Eq. 3)."""
        if not any(len(fused) for fused in step.fused_tokens):
            return self
        return replace(self, fused_kv=fuser(self.fused_kv, sharer_kv, step))
