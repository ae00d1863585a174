"""Trained baselines as responders: a receiver with adapters, a tuned receiver, a fuser trained on mismatched caches."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from c2c_lightning.export.format import find_directory, read_description
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.finetuned import check_adapters, check_tuned, tuned_receiver, with_adapters
from c2c_lightning.responders.responder_factory import ModelBundle, ResponderFactory
from c2c_lightning.responders.single_model import ReceiverOnly, ReceiverWithDocument


@dataclass(frozen=True)
class TrainedReceiver(ResponderFactory):
    """A receiver that was trained without a sharer, on the same rows as the fuser.

    Attributes:
        path: the folder that `lightning fit` wrote.
        reads: the receiver's conversation (`question`), or the sharers', private text included (`document`).
        label: its name in reports follows `receiver:`.
    """

    path: str
    reads: Literal["question", "document"] = "question"
    label: str = ""

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"receiver:{self.label}{':document' if self.reads == 'document' else ''}"

    @property
    def files(self) -> list[str]:
        """See `ResponderFactory.files`."""
        return [self.path]

    @abstractmethod
    def load(self, receiver: FrozenLM) -> FrozenLM:
        """The trained model."""

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        kind = ReceiverWithDocument if self.reads == "document" else ReceiverOnly
        return kind(self.load(models.receiver), self.name, measure_latency)


@dataclass(frozen=True)
class Lora(TrainedReceiver):
    """The receiver with LoRA adapters, from a training with `LoraBaseline`."""

    label: str = "lora"

    def check(self) -> None:
        """See `ResponderFactory.check`."""
        check_adapters(self.path)

    def load(self, receiver: FrozenLM) -> FrozenLM:
        """See `TrainedReceiver.load`."""
        return with_adapters(receiver, self.path)


@dataclass(frozen=True)
class Tuned(TrainedReceiver):
    """A tuned receiver, from a training with `FullFineTuning` or `PartialFineTuning`."""

    label: str = "tuned"

    def check(self) -> None:
        """See `ResponderFactory.check`."""
        check_tuned(self.path)

    def load(self, receiver: FrozenLM) -> FrozenLM:
        """See `TrainedReceiver.load`."""
        return tuned_receiver(receiver, self.path)


@dataclass(frozen=True)
class MismatchTrained(ResponderFactory):
    """A fuser that was trained on mismatched caches (`MismatchedCaches`), with the right caches.

    Attributes:
        path: its directory.
    """

    path: str
    name: ClassVar[str] = "c2c:trained_mismatched"

    @property
    def files(self) -> list[str]:
        """See `ResponderFactory.files`."""
        return [self.path]

    def check(self) -> None:
        """See `ResponderFactory.check`."""
        read_description(find_directory(self.path))

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        model = C2CModel.from_pretrained(self.path, models.receiver, list(models.sharers))
        return C2CResponder(model, self.name, measure_latency)
