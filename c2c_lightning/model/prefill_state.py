"""The receiver's KV-cache while a batch of prompts is prefilled and fused."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerStack, SharerKV, append_kv, states_of, with_states
from c2c_lightning.kv.states import ModelStates, StateCheckpoint
from c2c_lightning.model.frozen_lm import FrozenLM


@dataclass(frozen=True)
class PrefillState:
    """The receiver's cache over the first tokens of a batch of prompts.

    Attributes:
        tokens: the receiver's prompts, (batch, tokens).
        unfused_kv: entries as the receiver computed them, each on the fused entries of earlier steps.
        fused_kv: the same entries after their fusion step.
        checkpoints: a hybrid's states after each pass, computed on the fused entries of earlier steps.
    """

    tokens: TokenBatch
    unfused_kv: LayerStack
    fused_kv: LayerStack
    checkpoints: tuple[StateCheckpoint, ...]

    @classmethod
    def empty(cls, receiver: FrozenLM, tokens: TokenBatch) -> Self:
        """The state before the first token."""
        empty = receiver.empty_kv(len(tokens.input_ids))
        return cls(tokens, empty, empty, checkpoint(0, empty))

    @property
    def num_tokens(self) -> int:
        """Length of the cache in tokens, padding included."""
        return self.fused_kv[0].num_tokens

    @property
    def states(self) -> ModelStates | None:
        """A hybrid's states after the last token: they are not fused, but depend on the fused entries before them."""
        return self.checkpoints[-1].states if self.checkpoints else None

    def prefill(self, receiver: FrozenLM, until: int) -> Self:
        """The state after the receiver has processed its tokens up to column `until`.

        The autograd graph is kept only where it is needed: after fused entries that are being trained.
        """
        # All steps of mode `decode` end at one column, and a reused prefix may reach beyond a step.
        if until <= self.num_tokens:
            return self
        # Not the first layer alone: it need not be fused.
        is_trained = any(layer.keys.requires_grad or layer.values.requires_grad for layer in self.fused_kv)
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
            new = receiver.prefill_tokens(self.tokens, until, with_states(self.fused_kv, self.states))
        unfused_kv, fused_kv = append_kv(self.unfused_kv, new), append_kv(self.fused_kv, new)
        checkpoints = self.checkpoints + checkpoint(until, new)
        return replace(self, unfused_kv=unfused_kv, fused_kv=fused_kv, checkpoints=checkpoints)

    def skip(self, until: int) -> Self:
        """The state with zeros as the entries of the tokens up to column `until`: a fusion step replaces them all."""
        new = max(0, until - self.num_tokens)
        zeros = [layer.map(lambda x: x.new_zeros(*x.shape[:2], new, x.shape[3])) for layer in self.fused_kv]
        unfused_kv, fused_kv = append_kv(self.unfused_kv, zeros), append_kv(self.fused_kv, zeros)
        return replace(self, unfused_kv=unfused_kv, fused_kv=fused_kv)

    def fuse(self, fuser: Fuser, sharer_kv: SharerKV, step: FusionStep) -> Self:
        """The state with the tokens of a step fused (paper, Eq. 3)."""
        if not any(len(fused) for fused in step.fused_tokens):
            return self
        return replace(self, fused_kv=fuser(self.fused_kv, sharer_kv, step))


def checkpoint(num_tokens: int, kv: LayerStack) -> tuple[StateCheckpoint, ...]:
    """The states of a cache over `num_tokens` columns; none for a model without states."""
    states = states_of(kv)
    return () if states is None else (StateCheckpoint(num_tokens, states),)
