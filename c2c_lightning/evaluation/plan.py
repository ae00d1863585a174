"""The participants of an evaluation: responders and controls, checked as plain data, built from loaded models."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.controls import GatesClosed, Mismatched, Noise, OwnPromptControl, Shuffled, Zero
from c2c_lightning.evaluation.mismatched import DonorPool
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.registry import factory_of
from c2c_lightning.responders.responder_factory import ModelBundle, ResponderFactory

logger = logging.getLogger(__name__)

ControlName = Literal["mismatched", "shuffled", "zero", "noise", "self", "gates_closed"]

DEFAULT_RESPONDERS = ("receiver", "sharer", "t2t", "routing", "c2c")

#: Run wherever C2C does, unless `controls` is set: without them no gain is known to come from the sharer's cache.
DEFAULT_CONTROLS: tuple[ControlName, ...] = ("mismatched", "gates_closed")

# The others need donors (`mismatched`) or another model (`self`).
_OWN_PROMPT_CONTROLS: dict[str, type[OwnPromptControl]] = {
    "shuffled": Shuffled,
    "zero": Zero,
    "noise": Noise,
    "gates_closed": GatesClosed,
}


@dataclass(frozen=True)
class Participant:
    """A responder with one fuser (its number) in one draw, under its name in reports."""

    name: str
    draw: int
    responder: Responder
    fuser: int = 0


@dataclass(frozen=True)
class EvaluationPlan:
    """The responders and controls of a run, as plain data.

    Attributes:
        responders: names or factories.
        controls: None for the default ones where C2C runs; those that a fuser or benchmark does not allow are left out.
        mismatched_draws: number of donors a question.
        measure_latency: whether phases are timed exactly.
    """

    responders: Sequence[str | ResponderFactory]
    controls: Sequence[ControlName] | None = None
    mismatched_draws: int = 1
    measure_latency: bool = False

    @property
    def control_names(self) -> tuple[str, ...]:
        """The controls as set, or the default ones."""
        if self.controls is not None:
            return tuple(self.controls)
        return DEFAULT_CONTROLS if any(factory_of(entry).name == "c2c" for entry in self.responders) else ()

    def factories(self) -> list[ResponderFactory]:
        """The responders' factories."""
        if not self.responders and not self.control_names:
            raise BenchmarkError("No responders configured: set `responders` or `controls`.")
        return [factory_of(entry) for entry in self.responders]

    def check(self, benchmarks: Sequence[Task], has_fuser: bool, has_self_fuser: bool) -> None:
        """BenchmarkError for a name or requirement that is wrong, before a model is loaded."""
        factories = self.factories()
        for factory in factories:
            factory.check()
        unknown = [control for control in self.control_names if control not in get_args(ControlName)]
        if unknown:
            raise BenchmarkError(f"unknown control {unknown[0]!r}. Known are {', '.join(get_args(ControlName))}.")
        names = [factory.name for factory in factories] + [f"c2c:{control}" for control in self.control_names]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise BenchmarkError(f"`{repeated[0]}` is configured more than once. Names of responders must be unique.")
        if not has_fuser and (self.control_names or any(factory.needs_fuser for factory in factories)):
            raise BenchmarkError("C2C and its controls need a fuser: set `fuser`, or remove them from the run.")
        if "self" in self.control_names and not has_self_fuser:
            raise BenchmarkError("the control `self` needs a fuser from the receiver to itself: set `self_fuser`.")
        # Responders of users may only generate.
        writers = [factory.name for factory in factories if not factory.can_score]
        scored = [benchmark.name for benchmark in benchmarks if benchmark.mode != "generate"]
        if writers and scored:
            raise BenchmarkError(
                f"`{writers[0]}` computes no log-probabilities: benchmark {scored[0]} needs `mode: generate` for it."
            )


def build_participants(
    plan: EvaluationPlan,
    bundles: Sequence[ModelBundle],
    benchmark: Task,
    questions: Sequence[Question],
    self_c2c: C2CModel | None = None,
) -> list[Participant]:
    """All responders and controls for one benchmark, whose questions are the donors of `mismatched`.

    There is one bundle for each fuser; `self_c2c` is the receiver with itself as sharer, for the control `self`.
    """
    participants: list[Participant] = []
    for factory in plan.factories():
        # Without a fuser, the answers with the other fusers would be the same.
        for number, models in enumerate(bundles if factory.needs_fuser else bundles[:1]):
            responder = factory.build(models, measure_latency=plan.measure_latency)
            participants.append(Participant(factory.name, 0, responder, number))
    for control in plan.control_names:
        itself = [ModelBundle(bundles[0].receiver, (bundles[0].receiver,), self_c2c)]
        for number, models in enumerate(itself if control == "self" else bundles):
            try:
                participants += _control(control, models, number, plan, benchmark, questions)
            except BenchmarkError as problem:
                if plan.controls is not None:
                    raise
                logger.info("%s without the control `%s`: %s", benchmark.name, control, problem)
    return participants


def _control(
    control: str,
    models: ModelBundle,
    fuser: int,
    plan: EvaluationPlan,
    benchmark: Task,
    questions: Sequence[Question],
) -> list[Participant]:
    """A control with one fuser; BenchmarkError where the fuser or the questions do not allow it."""
    name, latency, model = f"c2c:{control}", plan.measure_latency, models.fused
    if control == "self":
        return [Participant(name, 0, C2CResponder(model, name, latency), fuser)]
    if control != "mismatched":
        responder = _OWN_PROMPT_CONTROLS[control](model, name, latency, models.last_prefill)
        return [Participant(name, 0, responder, fuser)]
    pool = DonorPool([question.prompt(benchmark.worded()) for question in questions])
    draws = range(max(1, plan.mismatched_draws))
    return [Participant(name, draw, Mismatched(model, pool, draw, name, latency), fuser) for draw in draws]
