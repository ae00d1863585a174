"""Whether a checkpoint's counters of progress, schedules and optimizer averages are complete and of the right types.

Lightning and PyTorch copy them without a check: a missing counter restarts at 0, a wrong one fails much later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim import Optimizer

from c2c_lightning.errors import CheckpointError

LOOPS = {TrainerFn.FITTING: "fit_loop", TrainerFn.VALIDATING: "validate_loop"}
"""The loop whose progress Lightning restores, by what the Trainer does."""

ADVICE = "The checkpoint is damaged, or of another version of Lightning. Use an earlier one."


def check_loops(saved: Any, trainer: Trainer) -> None:
    """Refuse progress of the Trainer's loop with missing or impossible counters.

    Args:
        saved: `loops` of a checkpoint; None where it has none, which a validation does not need.
        trainer: the Trainer, whose loops are still at their start.

    Raises:
        CheckpointError: names the counter.
    """
    function = trainer.state.fn
    if saved is None and function != TrainerFn.FITTING:
        return
    name = LOOPS[TrainerFn(function)]
    expected: Any = getattr(trainer, name).state_dict()
    _compare((saved or {}).get(name) if isinstance(saved or {}, Mapping) else saved, expected, f"`loops.{name}`")


def check_schedulers(saved: Any, schedulers: Sequence[Any]) -> None:
    """Refuse states of learning rate schedules with missing or impossible values.

    Args:
        saved: `lr_schedulers` of a checkpoint.
        schedulers: those of this run.

    Raises:
        CheckpointError: names the value.
    """
    if not isinstance(saved, Sequence) or len(saved) != len(schedulers):
        raise CheckpointError(f"The checkpoint has no states of {len(schedulers)} learning rate schedule(s). {ADVICE}")
    for number, (state, scheduler) in enumerate(zip(saved, schedulers, strict=True)):
        expected, where = scheduler.state_dict(), f"`lr_schedulers.{number}`"
        _compare(state, {key: expected[key] for key in ("last_epoch",) if key in expected}, where)
        # Others differ between versions of PyTorch.
        _compare(state, {key: value for key, value in expected.items() if key in state}, where)


def _compare(saved: Any, expected: Any, where: str) -> None:
    """Refuse a value of another type than the expected one, or a mapping or list that lacks a part of it."""
    if isinstance(expected, Mapping):
        if not isinstance(saved, Mapping):
            raise CheckpointError(f"The checkpoint's {where} is {type(saved).__name__}, not a mapping. {ADVICE}")
        for key, value in expected.items():
            if key not in saved:
                raise CheckpointError(f"The checkpoint's {where} has no `{key}`. {ADVICE}")
            if not str(key).endswith("state_dict"):  # the state of a loop's own, of any form
                _compare(saved[key], value, f"{where}.`{key}`")
    elif isinstance(expected, list):
        if not isinstance(saved, list) or len(saved) != len(expected):
            raise CheckpointError(f"The checkpoint's {where} is not a list of {len(expected)} values. {ADVICE}")
        for number, value in enumerate(expected):
            _compare(saved[number], value, f"{where}.{number}")
    elif not _is_possible(saved, expected):
        raise CheckpointError(f"The checkpoint's {where} is {saved!r:.60}, which is impossible. {ADVICE}")


def _is_possible(saved: Any, expected: Any) -> bool:
    """Whether a plain value may stand where another one is expected: same type, and no negative count."""
    if isinstance(expected, bool):
        return isinstance(saved, bool)
    if isinstance(expected, int):
        return isinstance(saved, int) and not isinstance(saved, bool) and saved >= 0
    if isinstance(expected, float):
        return isinstance(saved, float | int) and not isinstance(saved, bool)
    return True


def keeps_state(optimizer: Optimizer) -> bool:
    """Whether an optimizer of this kind and with these settings remembers anything between steps, found by a step."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    try:
        probe = type(optimizer)([parameter], **optimizer.defaults)
        probe.step()
    except Exception:  # an optimizer that is built otherwise
        return True
    return any(probe.state.values())
