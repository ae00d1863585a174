"""Non-finite values (NaN, infinity) in tensors, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


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


def non_finite_in_checkpoint(checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the non-finite weights and optimizer states of a checkpoint."""
    moments = {
        name: value for state in checkpoint.get("optimizer_states", []) for name, value in optimizer_tensors(state)
    }
    return non_finite_names({**checkpoint["state_dict"], **moments})
