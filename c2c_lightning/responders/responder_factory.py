"""What makes a responder from plain data and loaded models."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.last_prefill import LastPrefill


@dataclass(frozen=True)
class ModelBundle:
    """Loaded models that responders share.

    Attributes:
        receiver: the answering model.
        sharers: the models that communicate with it.
        c2c: receiver, sharers and fuser; None without a fuser.
    """

    receiver: FrozenLM
    sharers: tuple[FrozenLM, ...]
    c2c: C2CModel | None = None

    def sharer(self, number: int) -> FrozenLM:
        """One sharer, by its number."""
        if not 0 <= number < len(self.sharers):
            known = f"the sharers are 0 to {len(self.sharers) - 1}" if self.sharers else "there are no sharers"
            raise BenchmarkError(f"there is no sharer {number}: {known}. Give `sharers`, or correct the number.")
        return self.sharers[number]

    @property
    def fused(self) -> C2CModel:
        """The fused model; BenchmarkError if no fuser was given."""
        if self.c2c is None:
            raise BenchmarkError("C2C and its controls need a fuser: give `fuser`, or leave them out of `responders`.")
        return self.c2c

    @cached_property
    def last_prefill(self) -> LastPrefill:
        """The sharers' caches of the last batch, for the controls of this fused model."""
        return LastPrefill(self.fused)


class ResponderFactory(ABC):
    """Builds one responder from loaded models.

    Attributes:
        needs_fuser: whether it needs a fuser.
        can_score: whether it computes log-probabilities of given answers (modes letter and cloze).
    """

    needs_fuser: ClassVar[bool] = False
    can_score: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in reports."""

    @property
    def files(self) -> list[str]:
        """Folders of its own weights; an evaluation is not continued with other content of theirs."""
        return []

    def check(self) -> None:  # noqa: B027  (most have nothing to check)
        """Refuse choices that cannot work, before a model is loaded; BenchmarkError with the reason."""

    @abstractmethod
    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder; `measure_latency`: whether phases are timed exactly."""
