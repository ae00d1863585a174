"""Responders as plain data, for YAML: which one, with which choices. Models come in when they are built."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder, SomeSharers, TextAndCache
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.question_views import ViewOf, plain_view
from c2c_lightning.responders.routing import Routing
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly, SingleModel
from c2c_lightning.responders.text_to_text import AnswerAsMessage, TextToText


@dataclass(frozen=True)
class ModelBundle:
    """Loaded models that responders share.

    Attributes:
        receiver: the model that answers.
        sharers: the models that know more, or other things.
        c2c: receiver, sharers and fuser, where there is a fuser.
    """

    receiver: FrozenLM
    sharers: tuple[FrozenLM, ...]
    c2c: C2CModel | None = None

    def sharer(self, number: int) -> FrozenLM:
        """One sharer.

        Raises:
            BenchmarkError: there is none of this number.
        """
        if not 0 <= number < len(self.sharers):
            raise BenchmarkError(f"there is no sharer {number}; the pair has {len(self.sharers)}.")
        return self.sharers[number]

    @property
    def fused(self) -> C2CModel:
        """The fused model.

        Raises:
            BenchmarkError: no fuser was given.
        """
        if self.c2c is None:
            raise BenchmarkError("C2C and its controls need a fuser: give `fuser`, or leave them out of `responders`.")
        return self.c2c


class ResponderFactory(ABC):
    """Makes one responder out of loaded models.

    Attributes:
        needs_fuser: whether it can do without a fuser.
        can_score: whether it can tell the likelihood of given answers (modes letter and cloze).
    """

    needs_fuser: ClassVar[bool] = False
    can_score: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """How the responder is called in reports."""

    @abstractmethod
    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder.

        Args:
            team: the models.
            view: finds what sharers are shown, and questions without choices.
            measure_latency: whether phases are timed exactly.
        """


@dataclass(frozen=True)
class Receiver(ResponderFactory):
    """The receiver alone."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "receiver"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder."""
        return ReceiverOnly(team.receiver, self.name, measure_latency)


@dataclass(frozen=True)
class Sharer(ResponderFactory):
    """A sharer alone.

    Attributes:
        number: which sharer.
    """

    number: int = 0

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"sharer:{self.number}" if self.number else "sharer"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder."""
        return SharerOnly(team.sharer(self.number), self.name, view, measure_latency)


@dataclass(frozen=True)
class T2T(ResponderFactory):
    """Text-to-text communication.

    Attributes:
        message_prompt: what the sharer is asked; the paper's Text 3.
        message_max_new_tokens: limit of a message (the paper's is 256).
        whole_answer: whether the message is the sharer's full answer instead (then `t2t:answer`).
        sharer: which sharer.
    """

    message_prompt: str = TEXT_3
    message_max_new_tokens: int = 256
    whole_answer: bool = False
    sharer: int = 0

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "t2t:answer" if self.whole_answer else "t2t"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> TextToText:
        """The responder."""
        receiver = SingleModel(team.receiver, "receiver", measure_latency)
        sharer = SingleModel(team.sharer(self.sharer), "sharer", measure_latency)
        kind = AnswerAsMessage if self.whole_answer else TextToText
        return kind(receiver, sharer, self.message_prompt, self.message_max_new_tokens, view, self.name)


@dataclass(frozen=True)
class ConfidenceRouting(ResponderFactory):
    """Routing to the surer model."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "routing"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder."""
        models = [SingleModel(team.receiver, "receiver", measure_latency)]
        models += [SharerOnly(sharer, "sharer", view, measure_latency) for sharer in team.sharers]
        for model in models:
            model.with_confidence = True
        return Routing(models, self.name)


@dataclass(frozen=True)
class C2C(ResponderFactory):
    """Cache-to-cache communication.

    Attributes:
        sharers: numbers of the sharers that take part; all by default.
    """

    sharers: list[int] | None = None
    needs_fuser: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "c2c" if self.sharers is None else f"c2c:sharers={'+'.join(map(str, self.sharers))}"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder."""
        if self.sharers is not None:
            return SomeSharers(team.fused, self.sharers, view, self.name, measure_latency)
        return C2CResponder(team.fused, view, self.name, measure_latency)


@dataclass(frozen=True)
class TC2C(ResponderFactory):
    """Text and cache together.

    Attributes:
        message: how the text part is done.
    """

    needs_fuser: ClassVar[bool] = True

    message: T2T = T2T()

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "t-c2c"

    def build(self, team: ModelBundle, view: ViewOf = plain_view, measure_latency: bool = False) -> Responder:
        """The responder."""
        c2c = C2CResponder(team.fused, name=self.name, measure_latency=measure_latency)
        return TextAndCache(c2c, self.message.build(team, view, measure_latency), self.name)


#: Responders by their names, with the paper's choices.
BY_NAME: dict[str, ResponderFactory] = {
    factory.name: factory
    for factory in (Receiver(), Sharer(), T2T(), T2T(whole_answer=True), ConfidenceRouting(), C2C(), TC2C())
}


def factory_of(name: str | ResponderFactory) -> ResponderFactory:
    """A factory by its name; factories stay as they are.

    Raises:
        BenchmarkError: no responder has this name.
    """
    if isinstance(name, ResponderFactory):
        return name
    if name not in BY_NAME:
        raise BenchmarkError(f"unknown responder {name!r}. Known are {', '.join(BY_NAME)}; or give a class_path.")
    return BY_NAME[name]
