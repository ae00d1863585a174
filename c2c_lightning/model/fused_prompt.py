"""A fused prompt, kept: generation continues from it, and later prompts with the same prefix reuse its entries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.kv.layer import LayerStack, append_kv, states_of, with_states
from c2c_lightning.kv.states import ModelStates, StateCheckpoint


@dataclass(frozen=True)
class FusedPrompt:
    """The caches of a batch of prompts, over all tokens but the last.

    Attributes:
        prompt: the prompts.
        plan: the fusion steps.
        sharer_kv: each sharer's cache, as far as it is read; None for a sharer that is left out.
        unfused_kv: the receiver's entries before their own fusion step.
        fused_kv: the same entries after it.
        origin: identity of the models, fuser choices and fuser weights that made the entries; None if the entries
            cannot be made again (gate noise, caches from elsewhere), so that they are not reused.
        checkpoints: a hybrid's states after some of the columns, from which later prompts can continue; the last ones
            are those after all columns.
        missing: numbers of sharers that were left out because they did not answer.
    """

    prompt: PromptBatch
    plan: tuple[FusionStep, ...]
    sharer_kv: Sequence[LayerStack | None]
    unfused_kv: LayerStack
    fused_kv: LayerStack
    origin: Any = None
    checkpoints: tuple[StateCheckpoint, ...] = ()
    missing: tuple[int, ...] = ()

    @property
    def states(self) -> ModelStates | None:
        """A hybrid's states after all tokens but the last; None for a model without states."""
        return self.checkpoints[-1].states if self.checkpoints else None

    def with_response(self, response_ids: Int[Tensor, "1 response"], cache: LayerStack) -> "FusedPrompt":
        """The prompt followed by a response, none of whose tokens is fused.

        Args:
            response_ids: (1, response).
            cache: the receiver's cache over prompt and response; the last token may be missing.
        """
        done = self.unfused_kv[0].num_tokens
        count = cache[0].num_tokens - self.prompt.num_receiver_tokens
        sharers = (replace(s, source_index=F.pad(s.index, (0, count), value=-1)) for s in self.prompt.sharers)
        new, states = [layer.tokens(done) for layer in cache], states_of(cache)
        checkpoints = () if states is None else (StateCheckpoint(cache[0].num_tokens, states),)
        return replace(
            self,
            prompt=PromptBatch(self.prompt.receiver.append(TokenBatch(response_ids[:, :count])), tuple(sharers)),
            unfused_kv=with_states(append_kv(self.unfused_kv, new), states),
            fused_kv=append_kv(self.fused_kv, new),
            checkpoints=self.checkpoints + checkpoints,
        )
