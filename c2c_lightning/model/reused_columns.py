"""The columns of a cached prompt that begin other prompts: entries, and a hybrid's states after them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.kv.layer import LayerStack, with_states
from c2c_lightning.kv.states import ModelStates, StateCheckpoint, join_states
from c2c_lightning.model.prefill_state import checkpoint


@dataclass(frozen=True)
class ReusedColumns:
    """The first columns of several new prompts, as they lie in one cached prompt.

    Attributes:
        shifts: (rows,), padding columns of each new prompt less those of the cached one.
        end: number of columns of the new prompts, the same in each row, so that the remaining ones are one block.
        states: a hybrid's states after these columns.
    """

    shifts: Int[Tensor, " rows"]
    end: int
    states: ModelStates | None

    @classmethod
    def of(
        cls, checkpoints: Sequence[StateCheckpoint], shifts: Int[Tensor, " rows"], num_matching: Sequence[int]
    ) -> Self:
        """As many columns as possible.

        Args:
            checkpoints: the cached states of a hybrid, which can be continued after these columns only; none for a
                model whose cache can be continued anywhere.
            shifts: (rows,), see the class.
            num_matching: for each row the number of matching columns, counted in the cached prompt.
        """
        moves = [int(shift) for shift in shifts]
        if not checkpoints:
            return cls(shifts, max(0, min(move + n for move, n in zip(moves, num_matching, strict=True))), None)
        known = {point.num_tokens: point.states for point in checkpoints}
        initial = ModelStates(checkpoints[0].states.layout, {})
        ends = [{move + n for n in known if 0 < n <= most} for move, most in zip(moves, num_matching, strict=True)]
        end = max(set.intersection(*ends), default=0)
        return cls(shifts, end, join_states([known[end - move] for move in moves]) if end else initial)

    def take(self, kv: LayerStack) -> LayerStack:
        """The columns of a cache of one row, with the states after them."""

        def take(entries: Tensor) -> Tensor:
            column = (torch.arange(self.end)[None] - self.shifts[:, None]).clamp(min=0).to(entries.device)
            # (1, kv_heads, tokens, dim) to (kv_heads, rows, end, dim) to (rows, kv_heads, end, dim)
            return entries[0][:, column].transpose(0, 1)

        return with_states([layer.map(take) for layer in kv], self.states)


def own_checkpoint(kv: LayerStack) -> tuple[StateCheckpoint, ...]:
    """The states of a cache after its last token; none for a model without states."""
    return checkpoint(kv[0].num_tokens, kv) if kv else ()
