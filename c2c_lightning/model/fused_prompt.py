"""A prompt as a fused model has read it: what generation goes on from, and what longer prompts can go on from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.errors import PromptError
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.prefix_match import PrefixMatch, joined, match_prefix


@dataclass(frozen=True)
class FusedPrompt:
    """What reading a prompt leaves.

    Attributes:
        prompt: the prompts.
        rounds: the fusion rounds, in order.
        sharer_kv: each sharer's cache, as far as it is read; None for one that is left out.
        plain: the receiver's entries as it made them, the last prompt token's left out: on fused entries of earlier
            rounds, on plain ones of its own.
        fused: the same entries after their own round.
        made_by: what they depend on besides the tokens; None where that is not known.
    """

    prompt: PromptBatch
    rounds: tuple[FusionStep, ...]
    sharer_kv: list[LayerStack | None]
    plain: LayerStack
    fused: LayerStack
    made_by: Any

    def match_prefix(self, prompt: PromptBatch, rounds: Sequence[FusionStep], made_by: Any) -> PrefixMatch | None:
        """What of new prompts was read here already; each of them may begin as this one does, or not.

        Args:
            prompt: the new prompts, on the same device.
            rounds: their fusion rounds.
            made_by: what would make them.

        Raises:
            PromptError: this is more than one prompt.
        """
        if len(self.prompt) != 1:
            raise PromptError(f"a prefix is one prompt, but this one was read from {len(self.prompt)}.")
        if self.made_by is None or made_by != self.made_by:
            return None
        return match_prefix(self, prompt, rounds)

    def followed_by(self, new_ids: Tensor, entries: LayerStack) -> "FusedPrompt":
        """The same with an answer, no token of which is fused.

        Args:
            new_ids: (1, new), the answer.
            entries: the receiver's cache over prompt and answer; the last token may be missing.
        """
        receiver, done = self.prompt.receiver, self.plain[0].num_tokens
        count, pad = entries[0].num_tokens - self.prompt.num_receiver_tokens, torch.nn.functional.pad
        steps = torch.arange(1, count + 1, device=new_ids.device)
        tokens = TokenBatch(
            torch.cat([receiver.input_ids, new_ids[:, :count]], 1),
            pad(receiver.mask, (0, count), value=1),
            torch.cat([receiver.positions, receiver.positions[:, -1:] + steps], 1),
        )
        sharers = (replace(s, source_index=pad(s.index, (0, count), value=-1)) for s in self.prompt.sharers)
        rest = [layer.tokens(done) for layer in entries]
        return replace(
            self,
            prompt=PromptBatch(tokens, tuple(sharers)),
            plain=joined(self.plain, rest),
            fused=joined(self.fused, rest),
        )
