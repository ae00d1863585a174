"""Computes the weights of closed-form fuser kinds from paired caches of the same text."""

from collections.abc import Callable, Iterable

import torch

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.fuser import Fuser, SharerFuser
from c2c_lightning.fuser.kind import FuserKind
from c2c_lightning.fuser.packing import PackedKV, pack, pack_hidden
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.prefill_state import PrefillState


def closed_form_tokens(fuser: Fuser) -> int:
    """Number of fused tokens that the fit needs; 0 if no kind of the fuser has a closed form."""
    return max((group.closed_form_tokens for sharer in fuser.sharers for group in sharer.groups), default=0)


@torch.no_grad()
def fit_closed_form(
    core: C2CCore, prompts: Iterable[PromptBatch], done: Callable[[int], None] = lambda tokens: None
) -> int:
    """Fit every closed-form kind of a fuser, in one pass over as many prompts as needed.

    Args:
        core: receiver, sharers and fuser.
        prompts: prompts of the training data.
        done: called with the number of tokens of each batch.

    Returns:
        The number of tokens.
    """
    wanted, count = closed_form_tokens(core.fuser), 0
    pairs = [_Pairs(core, number) for number in range(len(core.sharers))]
    for prompt in prompts:
        prompt = prompt.to(core.receiver.device)
        end = prompt.num_receiver_tokens - 1
        own = PrefillState.empty(core.receiver, prompt.receiver).prefill(core.receiver, end).unfused_kv
        new = max(of_sharer.add(prompt, own) for of_sharer in pairs)
        count += new
        done(new)
        if count >= wanted:
            break
    for of_sharer in pairs:
        of_sharer.fit()
    return count


class _Pairs:
    """Paired entries of one sharer's fused tokens, collected on the CPU."""

    def __init__(self, core: C2CCore, number: int) -> None:
        self.core, self.number = core, number
        sharer: SharerFuser = core.fuser.sharers[number]
        pairs = [pair for pair in zip(sharer.groups, sharer.views, strict=True) if pair[0].closed_form_tokens]
        self.groups: list[tuple[FuserKind, list[int]]] = [(group, self._candidates(group)) for group, _ in pairs]
        self.views = [view for _, view in pairs]
        self.collected: list[list[tuple[PackedKV, PackedKV]]] = [[] for _ in pairs]

    def _candidates(self, group: FuserKind) -> list[int]:
        """The sharer layers whose entries have the shape of those that the group reads."""
        layers = self.core.sharers[self.number].geometry.layers
        return [m for m, layer in enumerate(layers) if layer == layers[group.sharer_layers[0]]]

    def add(self, prompt: PromptBatch, own: LayerStack) -> int:
        """Collect the fused tokens of a batch; their number."""
        fused = FusedTokens.join([step.fused_tokens[self.number] for step in prompt.plan.one_pass])
        if not self.groups or not len(fused):
            return 0
        end = prompt.plan.num_read_tokens[self.number]
        theirs = self.core.sharers[self.number].prefill_tokens(prompt.sharers[self.number], end)
        parts = zip(self.groups, self.views, self.collected, strict=True)
        for (group, candidates), view, collected in parts:
            like, pack_sharer = next(group.parameters()), pack_hidden if group.reads_hidden else pack
            mine = pack([own[n] for n in group.receiver_layers], fused.row, fused.token, like)
            other = pack_sharer([view(theirs[m]) for m in candidates], fused.row, fused.source, like)
            mine, other = group.position_free(mine, other, fused, candidates)
            collected.append((_on_cpu(mine), _on_cpu(other)))
        return len(fused)

    def fit(self) -> None:
        """Solve for the weights of every group."""
        for (group, candidates), collected in zip(self.groups, self.collected, strict=True):
            mine, other = (_join([pair[side] for pair in collected]) for side in (0, 1))
            group.fit_closed_form(mine, other, candidates)


def _on_cpu(kv: PackedKV) -> PackedKV:
    return PackedKV(kv.keys.cpu(), kv.values.cpu())


def _join(parts: list[PackedKV]) -> PackedKV:
    """Concatenation along the tokens."""
    return PackedKV(torch.cat([part.keys for part in parts], 1), torch.cat([part.values for part in parts], 1))
