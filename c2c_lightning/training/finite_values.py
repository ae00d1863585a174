"""Non-finite values (NaN, infinity) in tensors, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.errors import NonFiniteError


def non_finite_names(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the floating-point tensors with a NaN or an infinity; waits for the device."""
    return [
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def optimizer_tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an optimizer's state dict with names such as `optimizer.3.exp_avg`."""
    for number, values in state.get("state", {}).items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                yield f"optimizer.{number}.{name}", value


def refuse_non_finite(checkpoint: Mapping[str, Any], step: int) -> None:
    """Refuse to write a checkpoint with a non-finite value.

    Raises:
        NonFiniteError: names the first tensor.
    """
    if broken := non_finite_in_checkpoint(checkpoint):
        raise NonFiniteError(
            f"After optimizer step {step}, {len(broken)} tensors hold NaN or infinity, the first of them {broken[0]}. "
            "No checkpoint was written; earlier ones are unchanged."
        )


def non_finite_in_checkpoint(checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the non-finite weights and optimizer states of a checkpoint."""
    moments = {
        name: value for state in checkpoint.get("optimizer_states", []) for name, value in optimizer_tensors(state)
    }
    return non_finite_names({**checkpoint["state_dict"], **moments})
