"""Batches of prompts and of training examples: the interface between data and models.

A prompt is the receiver's tokens, each sharer's tokens, and for each receiver token the position in each sharer's
tokens that it reads. That covers every alignment, several sharers, private context and padding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from c2c_lightning.alignment.fusion_plan import FusionPlan, FusionStep, TokenPositions, keep_fraction
from c2c_lightning.data.token_batch import SharerTokens, TokenBatch, positions_of
from c2c_lightning.errors import PromptError

__all__ = ["PromptBatch", "SharerTokens", "TokenBatch", "TrainingBatch", "positions_of"]


@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts, left padded.

    Attributes:
        receiver: the receiver's tokens.
        sharers: each sharer's tokens.
        ready_plan: the fusion plan, if it has been computed already, as by `collate_prompts`.
    """

    receiver: TokenBatch
    sharers: tuple[SharerTokens, ...]
    # Not a field: `dataclasses.replace` must not give changed sharers the plan of the old ones.
    ready_plan: InitVar[FusionPlan | None] = None
    _plan: FusionPlan | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self, ready_plan: FusionPlan | None) -> None:
        """Fill in missing source indices and check that all parts belong together."""
        mask = self.receiver.mask
        if mask.device.type == "cpu" and mask.numel() and not bool(mask[:, -1].all()):
            raise PromptError("The last token of a prompt is padding: prompts must be padded on the left.")
        object.__setattr__(self, "sharers", tuple(self._checked(n, s) for n, s in enumerate(self.sharers)))
        object.__setattr__(self, "_plan", ready_plan)

    def _checked(self, number: int, sharer: SharerTokens) -> SharerTokens:
        ids = self.receiver.input_ids
        if sharer.source_index is None:
            sharer = replace(sharer, source_index=torch.full_like(ids, -1))
        if sharer.index.shape != ids.shape:
            raise PromptError(
                f"source_index of sharer {number} has shape {tuple(sharer.index.shape)}, but the receiver's tokens "
                f"have {tuple(ids.shape)}. It needs one entry per receiver token, -1 where nothing is read."
            )
        if sharer.input_ids.shape[0] != len(ids):
            raise PromptError(f"sharer {number} has {sharer.input_ids.shape[0]} rows, the receiver has {len(ids)}.")
        # On a GPU, reading a value would be a host sync.
        is_checked = sharer.index.device.type == "cpu" and sharer.index.numel()
        if is_checked and int(sharer.index.max()) >= sharer.input_ids.shape[1]:
            raise PromptError(
                f"source_index of sharer {number} points at position {int(sharer.index.max())}, but that sharer has "
                f"only {sharer.input_ids.shape[1]} tokens."
            )
        if is_checked and self._reads_padding(sharer):
            raise PromptError(
                f"source_index of sharer {number} points at padding of that sharer's tokens. Source indices count its "
                "columns, padding included; -1 where nothing is read."
            )
        return sharer

    def _reads_padding(self, sharer: SharerTokens) -> bool:
        """Whether a token that is fused, so not the last one of a prompt, reads padding of a sharer."""
        source = sharer.index[:, :-1]
        is_real = sharer.mask.gather(1, source.clamp(min=0)).bool()
        return bool((~is_real & (source >= 0) & self.receiver.mask[:, :-1].bool()).any())

    @classmethod
    def shared(cls, input_ids: Tensor, attention_mask: Tensor | None = None, num_sharers: int = 1) -> "PromptBatch":
        """The same tokens for receiver and sharers; every token but the last is fused.

        Args:
            input_ids: (batch, tokens), left padded.
            attention_mask: (batch, tokens), 1 for a real token.
            num_sharers: number of sharers that read them.
        """
        receiver = TokenBatch(input_ids, attention_mask)
        index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        index = index.masked_fill(receiver.mask == 0, -1)
        index[:, -1:] = -1
        sharer = SharerTokens(input_ids, receiver.mask, receiver.positions, index)
        return cls(receiver, (sharer,) * num_sharers)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.receiver.input_ids)

    @property
    def num_receiver_tokens(self) -> int:
        """Columns of the receiver's tokens, padding included."""
        return self.receiver.input_ids.shape[1]

    @cached_property
    def plan(self) -> FusionPlan:
        """The fusion steps in both orders; computed on the host at the first use, unless it was given."""
        if self._plan is not None:
            return self._plan
        plan = plan_of(self.receiver.on_host, [sharer.on_host for sharer in self.sharers])
        return plan.to(self.receiver.input_ids.device)

    @property
    def fusion_plan(self) -> tuple[FusionStep, ...]:
        """The fusion steps span by span, the order `sectioned`."""
        return self.plan.steps

    @property
    def on_host(self) -> "PromptBatch":
        """The same batch on the CPU, see `TokenBatch.on_host`."""
        if self.receiver.input_ids.device.type == "cpu":
            return self
        return PromptBatch(self.receiver.on_host, tuple(sharer.on_host for sharer in self.sharers))

    def to(self, device: torch.device | str) -> "PromptBatch":
        """The same batch and its fusion plan on another device."""
        if self.receiver.input_ids.device == torch.device(device):
            return self
        # The plan is moved, not computed again: its sizes would be host syncs on a GPU.
        sharers = tuple(sharer.to(device) for sharer in self.sharers)
        return PromptBatch(self.receiver.to(device), sharers, self.plan.to(device))

    def select(self, rows: Sequence[int] | Tensor) -> "PromptBatch":
        """The prompts of some rows; rows in a tensor are read without a wait if it is on the CPU."""
        pick = torch.as_tensor(rows)
        return PromptBatch(self.receiver.rows(pick), tuple(sharer.rows(pick) for sharer in self.sharers))

    def with_share(self, share: float, side: Literal["former", "latter"]) -> "PromptBatch":
        """The same prompts with only a part of each row's fused tokens fused (paper, Fig. 11).

        Args:
            share: the fraction that stays fused, 0 to 1.
            side: `former` keeps the first of each row's fused tokens, `latter` the last.
        """
        if not 0 <= share <= 1:
            raise PromptError(f"The share of the prompt that is fused is {share}, but must lie in [0, 1].")
        sharers = (replace(s, source_index=keep_fraction(s.index, share, side)) for s in self.on_host.sharers)
        return self._with_sharers(sharers)

    def without(self, columns: Sequence[int]) -> "PromptBatch":
        """The same prompts with the receiver's tokens in some columns not fused: a span ends before each of them."""
        dropped = torch.zeros(self.num_receiver_tokens, dtype=torch.bool)
        dropped[list(columns)] = True
        sharers = (replace(s, source_index=s.index.masked_fill(dropped, -1)) for s in self.on_host.sharers)
        return self._with_sharers(sharers)

    def _with_sharers(self, sharers: Iterable[SharerTokens]) -> "PromptBatch":
        """The same receiver's tokens with other tokens of the sharers, which are on the CPU."""
        return PromptBatch(self.receiver.on_host, tuple(sharers)).to(self.receiver.input_ids.device)


def plan_of(receiver: TokenBatch, sharers: Sequence[SharerTokens]) -> FusionPlan:
    """The fusion plan of a batch of prompts."""
    positions = TokenPositions(receiver.positions, tuple(sharer.positions for sharer in sharers))
    return FusionPlan.of([sharer.index for sharer in sharers], receiver.mask, positions)


class TrainingBatch:
    """Prompts with the responses that the loss is computed on.

    Not a dataclass: Lightning's half precision would rebuild a frozen one field by field, and fail.

    Attributes:
        prompt: the prompts.
        response_ids: (batch, response), right padded.
        response_mask: (batch, response), True where a token is supervised.
        supervised: (supervised,), indices of these tokens in the flattened (batch, response). Computed where the batch
            is made: on a GPU their number would be a host sync.
    """

    def __init__(
        self,
        prompt: PromptBatch,
        response_ids: Int[Tensor, "batch response"],
        response_mask: Bool[Tensor, "batch response"],
        supervised: Int[Tensor, " supervised"] | None = None,
    ) -> None:
        self._host: TrainingBatch | None = None
        self.prompt, self.response_ids, self.response_mask = prompt, response_ids, response_mask
        self.supervised = response_mask.flatten().nonzero()[:, 0] if supervised is None else supervised

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.response_ids)

    @property
    def num_supervised(self) -> Int[Tensor, ""]:
        """Number of supervised tokens."""
        return self.response_mask.sum()

    @property
    def num_receiver_tokens(self) -> int:
        """Tokens that the receiver processes, padding included."""
        return len(self) * (self.prompt.num_receiver_tokens + self.response_ids.shape[1])

    def prompt_texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """The prompts as the receiver reads them, decoded with its tokenizer."""
        rows = zip(self.prompt.receiver.input_ids, self.prompt.receiver.mask, strict=True)
        return [str(tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)) for ids, mask in rows]

    @property
    def attended(self) -> Bool[Tensor, "batch response"]:
        """True up to the last supervised token of each row; the tokens after it are padding."""
        return self.response_mask.flip(1).cummax(1).values.flip(1)

    @property
    def response(self) -> TokenBatch:
        """The response tokens that are attended to, right padded."""
        host = self._host.response if self._host is not None else None
        return TokenBatch(self.response_ids, self.attended, host_copy=host)

    @property
    def response_inputs(self) -> TokenBatch:
        """The response tokens that are run for a loss: a row's last one is predicted, but is no input."""
        host = self._host.response_inputs if self._host is not None else None
        return TokenBatch(self.response_ids[:, :-1], self.attended[:, 1:], host_copy=host)

    @property
    def on_host(self) -> "TrainingBatch":
        """The same batch on the CPU: the one that it was moved from, else one that is read back."""
        return self._host or self.to("cpu")

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same batch on another device; it keeps the one on the CPU, see `TokenBatch`."""
        device = torch.device(device)
        if self.response_ids.device == device:
            return self
        if device.type == "cpu" and self._host is not None:
            return self._host
        # A copy to the CPU has to be waited for: nothing else orders it before the host reads the values.
        parts = self.response_ids, self.response_mask, self.supervised
        moved = (part.to(device, non_blocking=device.type != "cpu") for part in parts)
        batch = TrainingBatch(self.prompt.to(device), *moved)
        batch._host = self if self.response_ids.device.type == "cpu" else self._host
        return batch
