"""Operations that would make the host wait for a device, found without one: on tensors that have no values.

`meta` tensors stand for those of a GPU. Reading one raises by itself; copies to and from the device, and operations
whose result has a size that depends on values, are refused here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")

READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "bincount"}
"""Operations that read values."""


class HostReadError(AssertionError):
    """An operation that waits for the device."""


class NoHostReads(TorchDispatchMode):
    """While it is active, an operation on device tensors that makes the host wait raises `HostReadError`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse it, or run it."""
        kwargs = kwargs or {}
        if reason := _reason(func, args, kwargs):
            raise HostReadError(f"{func} waits for the device: {reason}")
        return func(*args, **kwargs)


class NoCopiedLists(TorchFunctionMode):
    """While it is active, making a device tensor from numbers of the host raises: it is a blocking copy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse it, or run it."""
        device = (kwargs or {}).get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == DEVICE:
            raise HostReadError(f"{func.__name__} waits for the device: it is a blocking copy")
        return func(*args, **(kwargs or {}))


def _reason(func: Any, args: Any, kwargs: dict[str, Any]) -> str | None:
    """Why an operation waits, or None."""
    name, tensors = func.overloadpacket.__name__, [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    if name in ("_to_copy", "copy_", "to"):
        return _copy_reason(args, kwargs, tensors)
    if not any(tensor.device == DEVICE for tensor in tensors):
        return None
    if name in READS:
        return "it reads values"
    if name in ("index", "index_put", "index_put_") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:]):
        return "the size of a choice by a mask depends on values"
    if name == "repeat_interleave" and len(tensors) > 1:
        return "the size of the result depends on values"
    return None


def _copy_reason(args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> str | None:
    """Why a copy waits: it leaves the device, or comes from pageable memory of the host and is not asynchronous."""
    source = tensors[-1].device
    target = tensors[0].device if len(tensors) > 1 else torch.device(kwargs.get("device") or source)
    if source == target:
        return None
    if source == DEVICE:
        return "it copies to the host"
    is_asynchronous = kwargs.get("non_blocking") or True in [arg for arg in args[2:] if isinstance(arg, bool)]
    return None if is_asynchronous else "it is a blocking copy"


@contextmanager
def host_reads_refused() -> Iterator[None]:
    """While it lasts, a wait for the device raises."""
    # `is_autocast_enabled` does not know the device `meta`.
    with mock.patch.object(torch, "is_autocast_enabled", return_value=False), NoCopiedLists(), NoHostReads():
        yield
