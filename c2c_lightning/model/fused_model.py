"""Receiver, sharers and fuser together: the part of the method that fusion modes work on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import PairMismatchError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.kv.rotary import LayerRotary
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.prefill_state import PrefillState


class FusedModel(nn.Module, ABC):
    """Receiver, sharers and fuser, with the operations of `C2CCore` that fusion modes use.

    Only `fuser` is a submodule: it alone trains, and it alone is in the state dict.

    Attributes:
        receiver: the model that responds.
        sharers: the models whose caches are fused.
        fuser: the trained part, F of Eq. 3.
    """

    def __init__(self, receiver: FrozenLM, sharers: Sequence[FrozenLM], fuser: Fuser) -> None:
        super().__init__()
        self.receiver, self.sharers, self.fuser = receiver, tuple(sharers), fuser
        for number, sharer in enumerate(self.sharers):
            if is_hidden := fuser.sharers[number].reads_hidden:
                check_hidden_size(fuser.sharer_geometries[number], sharer.geometry, sharer.spec.path)
                sharer.records_hidden = True
            if fuser.needs_rotary(number):
                theirs = [LayerRotary()] * sharer.geometry.num_layers if is_hidden else sharer.rotary
                fuser.bind_rotary(number, receiver.rotary, theirs)

    @abstractmethod
    def fuse_prompt(self, prompt: PromptBatch, sharer_kv: SharerKV, start: PrefillState | None = None) -> PrefillState:
        """Prefill the receiver step by step and fuse the tokens of each step (paper, Eq. 3)."""

    @abstractmethod
    def continue_sharers(self, text: PromptBatch, sharer_kv: SharerKV) -> list[LayerStack | None]:
        """Sharer caches continued over a longer text, as far as it is read."""


@runtime_checkable
class ResponseCore(Protocol):
    """Receiver, sharers and fuser, as far as a teacher-forced response pass needs them."""

    @property
    def receiver(self) -> FrozenLM:
        """See `FusedModel`."""
        ...

    @property
    def sharers(self) -> Sequence[FrozenLM]:
        """See `FusedModel`."""
        ...

    @property
    def fuser(self) -> Fuser:
        """See `FusedModel`."""
        ...

    def fuse_prompt(self, prompt: PromptBatch, sharer_kv: SharerKV, start: PrefillState | None = None) -> PrefillState:
        """See `FusedModel.fuse_prompt`."""
        ...

    def continue_sharers(self, text: PromptBatch, sharer_kv: SharerKV) -> list[LayerStack | None]:
        """See `FusedModel.continue_sharers`."""
        ...


def check_hidden_size(wanted: KVGeometry, given: KVGeometry, name: str) -> None:
    """Refuse a sharer whose hidden states have another width than those that the fuser reads.

    Raises:
        PairMismatchError: with both widths.
    """
    if wanted.hidden_size != given.hidden_size:
        raise PairMismatchError(
            f"the fuser reads hidden states of width {wanted.hidden_size}, but those of {name} have width "
            f"{given.hidden_size}. Use the sharer that it was trained for."
        )
