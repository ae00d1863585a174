"""Responder factories: a responder with its choices as plain data, for YAML; `build` takes the loaded models."""

from dataclasses import dataclass
from typing import ClassVar

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder, SomeSharers
from c2c_lightning.responders.partial_fusion import PartialFusion, Side
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.responder_factory import ModelBundle, ResponderFactory
from c2c_lightning.responders.routing import Routing
from c2c_lightning.responders.single_model import (
    PrivateReader,
    ReceiverOnly,
    ReceiverWithDocument,
    SharerOnly,
    SingleModel,
    WithoutDocument,
)
from c2c_lightning.responders.text_to_text import AnswerAsMessage, TextToText
from c2c_lightning.responders.trained import Lora, MismatchTrained, Tuned


@dataclass(frozen=True)
class Receiver(ResponderFactory):
    """The receiver alone."""

    name: ClassVar[str] = "receiver"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return ReceiverOnly(models.receiver, self.name, measure_latency)


@dataclass(frozen=True)
class Document(ResponderFactory):
    """The receiver with the private text in its own prompt, the ceiling of what the sharer's cache can give it."""

    name: ClassVar[str] = "receiver:document"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return ReceiverWithDocument(models.receiver, self.name, measure_latency)


@dataclass(frozen=True)
class ReceiverWithoutDocument(ResponderFactory):
    """The receiver with the sharers' worked examples and the question, without the private text."""

    name: ClassVar[str] = "receiver:no_document"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return WithoutDocument(models.receiver, self.name, measure_latency)


@dataclass(frozen=True)
class SharerWithoutDocument(ResponderFactory):
    """The first sharer with its worked examples and the question, without the private text."""

    name: ClassVar[str] = "sharer:no_document"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return WithoutDocument(models.sharer(0), self.name, measure_latency)


@dataclass(frozen=True)
class Sharer(ResponderFactory):
    """A sharer alone.

    Attributes:
        number: number of the sharer.
    """

    number: int = 0

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"sharer:{self.number}" if self.number else "sharer"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return SharerOnly(models.sharer(self.number), self.name, measure_latency)


@dataclass(frozen=True)
class T2T(ResponderFactory):
    """Text-to-text communication.

    Attributes:
        message_prompt: template of the sharer's prompt; default Text 3 of the paper.
        message_max_new_tokens: limit of a message, in tokens (paper: 256).
        whole_answer: whether the message is the sharer's answer to the question instead (then `t2t:answer`).
        sharer: number of the sharer.
    """

    message_prompt: str = TEXT_3
    message_max_new_tokens: int = 256
    whole_answer: bool = False
    sharer: int = 0

    @property
    def name(self) -> str:
        """Name in reports."""
        return "t2t:answer" if self.whole_answer else "t2t"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> TextToText:
        """The responder."""
        receiver = ReceiverOnly(models.receiver, measure_latency=measure_latency)
        return self.combine(receiver, models, measure_latency, self.name)

    def combine(self, receiver: Responder, models: ModelBundle, measure_latency: bool, name: str) -> TextToText:
        """The sharer's message in front of any responder's question."""
        # Not `SharerOnly`: the request is already a conversation of the sharer.
        sharer = PrivateReader(models.sharer(self.sharer), "sharer", measure_latency)
        kind = AnswerAsMessage if self.whole_answer else TextToText
        return kind(receiver, sharer, self.message_prompt, self.message_max_new_tokens, name)


@dataclass(frozen=True)
class ConfidenceRouting(ResponderFactory):
    """Routing to the most confident model."""

    name: ClassVar[str] = "routing"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        singles: list[SingleModel] = [ReceiverOnly(models.receiver, None, measure_latency, with_confidence=True)]
        singles += [SharerOnly(sharer, None, measure_latency, with_confidence=True) for sharer in models.sharers]
        return Routing(singles, self.name)


@dataclass(frozen=True)
class C2C(ResponderFactory):
    """Cache-to-cache communication.

    Attributes:
        sharers: numbers of the active sharers; default all.
    """

    sharers: list[int] | None = None
    needs_fuser: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Name in reports."""
        return "c2c" if self.sharers is None else f"c2c:sharers={'+'.join(map(str, self.sharers))}"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        if self.sharers is not None:
            return SomeSharers(models.fused, self.sharers, self.name, measure_latency)
        return C2CResponder(models.fused, self.name, measure_latency)


@dataclass(frozen=True)
class FusedShare(ResponderFactory):
    """C2C with a part of the prompt fused (paper, Fig. 11).

    Attributes:
        share: share of each prompt's fused tokens that is fused, 0 to 1.
        side: `former` fuses the first of them, `latter` the last.
    """

    share: float
    side: Side = "former"
    needs_fuser: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an impossible share."""
        if not 0 <= self.share <= 1:
            raise BenchmarkError(f"the share of the prompt that is fused is {self.share}, but must be in [0, 1].")

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"c2c-{self.side}={self.share:g}"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        return PartialFusion(models.fused, self.share, self.side, self.name, measure_latency)


@dataclass(frozen=True)
class TC2C(ResponderFactory):
    """T-C2C: text and cache together (paper, table 15).

    Attributes:
        message: choices of the text part.
    """

    message: T2T = T2T()
    needs_fuser: ClassVar[bool] = True
    name: ClassVar[str] = "t-c2c"

    def build(self, models: ModelBundle, measure_latency: bool = False) -> Responder:
        """The responder."""
        c2c = C2CResponder(models.fused, self.name, measure_latency)
        return self.message.combine(c2c, models, measure_latency, self.name)


#: Responders by name, with the paper's choices.
BY_NAME: dict[str, ResponderFactory] = {
    factory.name: factory
    for factory in (
        Receiver(),
        Document(),
        ReceiverWithoutDocument(),
        SharerWithoutDocument(),
        Sharer(),
        T2T(),
        T2T(whole_answer=True),
        ConfidenceRouting(),
        C2C(),
        TC2C(),
    )
}


#: Responders by name that need the folder of a training.
NEEDS_PATH: dict[str, type[ResponderFactory]] = {
    "receiver:lora": Lora,
    "receiver:tuned": Tuned,
    "c2c:trained_mismatched": MismatchTrained,
}


def factory_of(name: str | ResponderFactory) -> ResponderFactory:
    """The factory of a name; factories are returned unchanged."""
    if isinstance(name, ResponderFactory):
        return name
    if name in NEEDS_PATH:
        raise BenchmarkError(
            f"the responder {name!r} needs the folder of its training: write it as `{{class_path: "
            f"{NEEDS_PATH[name].__module__}.{NEEDS_PATH[name].__name__}, init_args: {{path: FOLDER}}}}`."
        )
    if name not in BY_NAME:
        raise BenchmarkError(f"unknown responder {name!r}. Known are {', '.join(BY_NAME)}; or give a class_path.")
    return BY_NAME[name]
