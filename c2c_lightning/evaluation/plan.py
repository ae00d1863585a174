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

_CONTROLS: dict[str, type[C2CResponder]] = {
    "shuffled": Shuffled,
    "zero": Zero,
    "noise": Noise,
    "self": C2CResponder,
    "gates_closed": GatesClosed,
}


@dataclass(frozen=True)
class Participant:
    """A responder in one draw with one fuser.

    Attributes:
        name: name in reports.
        draw: number of the draw, for controls with several draws.
        responder: the responder.
        fuser: number of the fuser.
    """

    name: str
    draw: int
    responder: Responder
    fuser: int = 0


@dataclass(frozen=True)
class EvaluationPlan:
    """The responders and controls of a run, as plain data.

    Attributes:
        responders: by name or by class_path.
        controls: names of controls.
        mismatched_draws: number of donors for each question.
        measure_latency: whether phases are timed exactly.
    """

    responders: Sequence[str | ResponderFactory]
    controls: Sequence[ControlName] = ()
    mismatched_draws: int = 1
    measure_latency: bool = False

    def factories(self) -> list[ResponderFactory]:
        """The responders' factories.

        Raises:
            BenchmarkError: an unknown name, or neither responders nor controls.
        """
        if not self.responders and not self.controls:
            raise BenchmarkError("No responders configured: set `responders` or `controls`.")
        return [factory_of(entry) for entry in self.responders]

    def check(self, benchmarks: Sequence[Task], has_fuser: bool, has_self_fuser: bool) -> None:
        """Check the plan before a model is loaded.

        Raises:
            BenchmarkError: an unknown or repeated name, a missing fuser, or a responder that cannot score options.
        """
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
    """All responders and controls for one benchmark.

    Args:
        plan: the responders and controls.
        bundles: the loaded models, one bundle for each fuser; responders without a fuser are built once.
        benchmark: the benchmark, resolved.
        questions: all its questions, from which donors are drawn.
        self_c2c: the receiver with itself as sharer, for the control `self`.
    """
    participants: list[Participant] = []
    for factory in plan.factories():
        for number, models in enumerate(bundles if factory.needs_fuser else bundles[:1]):
            responder = factory.build(models, measure_latency=plan.measure_latency)
            participants.append(Participant(factory.name, 0, responder, number))
    pool = DonorPool([q.prompt(benchmark.worded()) for q in questions]) if "mismatched" in plan.controls else None
    for control in plan.controls:
        for number, model in enumerate([self_c2c] if control == "self" else [models.fused for models in bundles]):
            assert model is not None
            participants += _control(plan, control, model, number, pool)
    return participants


def _control(
    plan: EvaluationPlan, control: ControlName, model: C2CModel, fuser: int, pool: DonorPool | None
) -> list[Participant]:
    name = f"c2c:{control}"
    if control != "mismatched":
        return [Participant(name, 0, _CONTROLS[control](model, name, plan.measure_latency), fuser)]
    assert pool is not None
    draws = range(max(1, plan.mismatched_draws))
    return [Participant(name, n, Mismatched(model, pool, n, name, plan.measure_latency), fuser) for n in draws]
