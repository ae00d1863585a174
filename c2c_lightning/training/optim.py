"""Which parameters learn at which rate, and how the rate changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from c2c_lightning.fuser.fuser import Fuser


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the run (transformers' schedules).

    Attributes:
        name: shape of the fall after the warm-up.
        warmup: share of all optimizer steps over which the rate rises from 0.
    """

    name: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = 0.1

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """A scheduler that is stepped once an optimizer step; the first update has rate 0, as released."""
        warmup_steps = int(self.warmup * total_steps)
        scheduler: LRScheduler = get_scheduler(self.name, optimizer, warmup_steps, total_steps)
        return scheduler


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

    def build(self, fuser: Fuser, optimizer: Callable[[Any], Optimizer]) -> Optimizer:
        """An optimizer over the fuser's parameters, each in exactly one group."""
        roles = fuser.parameter_roles()
        no_decay = {} if self.decay_all else {"weight_decay": 0.0}
        groups: list[dict[str, Any]] = [
            {"params": roles.weights},
            {"params": roles.norms, **no_decay},
            {"params": roles.gates, **no_decay},
        ]
        made = optimizer([group for group in groups if group["params"]])
        if roles.gates:
            made.param_groups[-1]["lr"] *= self.gate_rate
        return made
