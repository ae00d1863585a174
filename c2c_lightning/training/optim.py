"""Learning rates of the parameter groups, and their schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config_checks import check_fields
from c2c_lightning.fuser.parameter_roles import ParameterRoles


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the run (transformers' schedules).

    Attributes:
        name: shape of the decay after the warm-up.
        warmup: share of all optimizer steps over which the rate rises from 0.
    """

    name: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = 0.1

    def __post_init__(self) -> None:
        """Refuse an unknown schedule, and a share that is none."""
        check_fields(self)
        if not 0 <= self.warmup <= 1:
            raise ConfigurationError(f"schedule: `warmup` is {self.warmup}, but must be from 0 to 1.")

    def build(self, optimizer: Optimizer, total_steps: int | float) -> LRScheduler:
        """A scheduler that is stepped once per optimizer step; the first update has rate 0, as released.

        Args:
            optimizer: the optimizer.
            total_steps: optimizer steps of the run.

        Raises:
            ConfigurationError: the run has no known number of steps.
        """
        if math.isinf(total_steps):
            raise ConfigurationError(
                "The learning rate depends on the number of steps: set `trainer.max_steps` or `trainer.max_epochs`, "
                "in addition to `trainer.max_time`."
            )
        warmup_steps = int(self.warmup * total_steps)
        scheduler: LRScheduler = get_scheduler(self.name, optimizer, warmup_steps, int(total_steps))
        return scheduler


@runtime_checkable
class HasRoles(Protocol):
    """A fuser, or a model that is trained."""

    def parameter_roles(self) -> ParameterRoles:
        """Its parameters by their role for the optimizer."""
        ...


@dataclass(frozen=True)
class ParameterGroups:
    """How the fuser's parameters differ for the optimizer.

    Attributes:
        gate_rate: learning rate of the gate logits, as a multiple of the common one. Gates learn slowly: with few steps
            and rate 1 they are sampled shut for much of the training.
        decay_all: whether weight decay reaches gates and norms too (the released code does so).
    """

    gate_rate: float = 1.0
    decay_all: bool = False

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        check_fields(self)
        if not 0 <= self.gate_rate < math.inf:
            raise ConfigurationError(f"parameter_groups: `gate_rate` is {self.gate_rate}, but must be 0 or more.")

    def build(self, trained: HasRoles, optimizer: Callable[[Any], Optimizer]) -> Optimizer:
        """An optimizer over the trained parameters, each in exactly one group."""
        roles = trained.parameter_roles()
        no_decay = {} if self.decay_all else {"weight_decay": 0.0}
        groups: list[dict[str, Any]] = [
            {"params": roles.weights},
            {"params": roles.norms, **no_decay},
            {"params": roles.gates, **no_decay},
        ]
        try:
            made = optimizer([group for group in groups if group["params"]])
        except (TypeError, ValueError) as problem:
            raise ConfigurationError(f"The optimizer refuses its arguments: {problem}") from problem
        for name, value in made.defaults.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigurationError(f"The optimizer's `{name}` is {value}; it must be finite.")
        if roles.gates:
            made.param_groups[-1]["lr"] *= self.gate_rate
        return made
