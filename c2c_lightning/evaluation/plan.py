"""Who takes part in an evaluation: responders and controls, built for one benchmark out of loaded models."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.controls import GatesClosed, Mismatched, Noise, ReceiverInSteps, Shuffled, Zero
from c2c_lightning.evaluation.mismatched import DonorPool
from c2c_lightning.evaluation.tasks import Question, QuestionViews, Task
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.question_views import ViewOf
from c2c_lightning.responders.registry import ModelBundle, Receiver, ResponderFactory, factory_of

ControlName = Literal["mismatched", "shuffled", "zero", "noise", "self", "gates_closed"]

_PLAIN: dict[str, type[C2CResponder]] = {
    "shuffled": Shuffled,
    "zero": Zero,
    "noise": Noise,
    "self": C2CResponder,
    "gates_closed": GatesClosed,
}


@dataclass(frozen=True)
class Participant:
    """One responder in one draw.

    Attributes:
        name: how it is called in reports.
        draw: number of the draw, for controls that are drawn several times.
        responder: who answers.
        fuser: number of the fuser, where several take part.
    """

    name: str
    draw: int
    responder: Responder
    fuser: int = 0


@dataclass(frozen=True)
class Field:
    """Who takes part, as plain data.

    Attributes:
        responders: responders, by name or by class_path.
        controls: names of controls.
        mismatched_draws: how many donors each question gets.
        measure_latency: whether phases are timed exactly.
    """

    responders: Sequence[str | ResponderFactory]
    controls: Sequence[ControlName] = ()
    mismatched_draws: int = 1
    measure_latency: bool = False

    def factories(self) -> list[ResponderFactory]:
        """The responders.

        Raises:
            BenchmarkError: an unknown name, or nobody at all.
        """
        if not self.responders and not self.controls:
            raise BenchmarkError("nobody takes part: give at least one of `responders` or `controls`.")
        return [factory_of(entry) for entry in self.responders]

    def check(self, benchmarks: Sequence[Task], has_fuser: bool, has_self_fuser: bool) -> None:
        """Refuse what cannot be, before a model is loaded.

        Raises:
            BenchmarkError: an unknown or doubled name, a fuser that is missing, a responder that cannot score options.
        """
        factories = self.factories()
        unknown = [control for control in self.controls if control not in get_args(ControlName)]
        if unknown:
            raise BenchmarkError(f"unknown control {unknown[0]!r}. Known are {', '.join(get_args(ControlName))}.")
        names = [factory.name for factory in factories] + [f"c2c:{control}" for control in self.controls]
        doubled = [name for name, count in Counter(names).items() if count > 1]
        if doubled:
            raise BenchmarkError(f"{doubled[0]} takes part more than once.")
        if not has_fuser and (self.controls or any(factory.needs_fuser for factory in factories)):
            raise BenchmarkError("C2C and its controls need a fuser: give `fuser`, or leave them out of `responders`.")
        if "self" in self.controls and not has_self_fuser:
            raise BenchmarkError("the control `self` needs a fuser from the receiver to itself: give `self_fuser`.")
        for benchmark in benchmarks:
            mute = [factory.name for factory in factories if not factory.can_score]
            if benchmark.mode != "generate" and mute:
                raise BenchmarkError(
                    f"{mute[0]} cannot tell likelihoods: {benchmark.name} needs `mode: generate` for it."
                )


def entrants(
    field: Field,
    teams: Sequence[ModelBundle],
    benchmark: Task,
    questions: Sequence[Question],
    self_c2c: C2CModel | None = None,
) -> list[Participant]:
    """All responders and controls for one benchmark.

    Args:
        field: who takes part.
        teams: the loaded models, once with each fuser; what needs no fuser takes part once.
        benchmark: the benchmark, with everything filled in.
        questions: all its questions: donors are drawn from them.
        self_c2c: the receiver with itself as sharer, for the control `self`.
    """
    view = QuestionViews(questions, benchmark.worded())
    latency = field.measure_latency
    found: list[Participant] = []
    for factory in field.factories():
        if isinstance(factory, Receiver) and "gates_closed" in field.controls:
            found.append(Participant(factory.name, 0, ReceiverInSteps(teams[0].fused, view, factory.name, latency)))
            continue
        taking_part = enumerate(teams if factory.needs_fuser else teams[:1])
        found += [Participant(factory.name, 0, factory.build(team, view, latency), n) for n, team in taking_part]
    for control in field.controls:
        name = f"c2c:{control}"
        models = [self_c2c] if control == "self" else [team.fused for team in teams]
        for number, model in enumerate(models):
            assert model is not None
            if control == "mismatched":
                found += _mismatched(field, model, number, benchmark, questions, view)
            else:
                found.append(Participant(name, 0, _PLAIN[control](model, view, name, latency), number))
    return found


def _mismatched(
    field: Field, model: C2CModel, fuser: int, benchmark: Task, questions: Sequence[Question], view: ViewOf
) -> list[Participant]:
    wording = benchmark.worded()
    pool = DonorPool([question.conversation(wording) for question in questions], donor_groups(questions))
    name = "c2c:mismatched"
    draws = range(max(1, field.mismatched_draws))
    return [Participant(name, n, Mismatched(model, pool, n, view, name, field.measure_latency), fuser) for n in draws]


def donor_groups(questions: Sequence[Question]) -> list[Hashable]:
    """Questions with the same choices belong together; else those with as many choices."""
    counts = Counter(question.choices for question in questions)
    return [q.choices if counts[q.choices] > 1 else len(q.choices) for q in questions]
