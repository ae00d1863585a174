"""The participants of an evaluation: responders and controls, checked as plain data, built from loaded models."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.controls import GatesClosed, Mismatched, Noise, Shuffled, Zero
from c2c_lightning.evaluation.mismatched import DonorPool
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.registry import ModelBundle, ResponderFactory, factory_of

ControlName = Literal["mismatched", "shuffled", "zero", "noise", "self", "gates_closed"]

# `mismatched` needs donors and is built apart.
_CONTROLS: dict[str, type[C2CResponder]] = {
    "shuffled": Shuffled,
    "zero": Zero,
    "noise": Noise,
    "self": C2CResponder,
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
    """The responders and controls of a run, as plain data; `mismatched_draws` is the number of donors a question."""

    responders: Sequence[str | ResponderFactory]
    controls: Sequence[ControlName] = ()
    mismatched_draws: int = 1
    measure_latency: bool = False

    def factories(self) -> list[ResponderFactory]:
        """The responders' factories."""
        if not self.responders and not self.controls:
            raise BenchmarkError("No responders configured: set `responders` or `controls`.")
        return [factory_of(entry) for entry in self.responders]

    def check(self, benchmarks: Sequence[Task], has_fuser: bool, has_self_fuser: bool) -> None:
        """BenchmarkError for a name or requirement that is wrong, before a model is loaded."""
        factories = self.factories()
        unknown = [control for control in self.controls if control not in get_args(ControlName)]
        if unknown:
            raise BenchmarkError(f"unknown control {unknown[0]!r}. Known are {', '.join(get_args(ControlName))}.")
        names = [factory.name for factory in factories] + [f"c2c:{control}" for control in self.controls]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise BenchmarkError(f"`{repeated[0]}` is configured more than once. Names of responders must be unique.")
        if not has_fuser and (self.controls or any(factory.needs_fuser for factory in factories)):
            raise BenchmarkError("C2C and its controls need a fuser: set `fuser`, or remove them from the run.")
        if "self" in self.controls and not has_self_fuser:
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
    for control in plan.controls:
        for number, model in enumerate([self_c2c] if control == "self" else [models.fused for models in bundles]):
            assert model is not None
            name = f"c2c:{control}"
            if control == "mismatched":
                pool = DonorPool([question.prompt(benchmark.worded()) for question in questions])
                participants += [
                    Participant(name, draw, Mismatched(model, pool, draw, name, plan.measure_latency), number)
                    for draw in range(max(1, plan.mismatched_draws))
                ]
            else:
                responder = _CONTROLS[control](model, name, plan.measure_latency)
                participants.append(Participant(name, 0, responder, number))
    return participants
