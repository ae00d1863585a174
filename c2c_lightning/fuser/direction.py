"""A direction of communication between two models of a hub."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Self

from torch import nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import did_you_mean

_NAME, _BETWEEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), "_to_"


@dataclass(frozen=True, order=True)
class Direction:
    """The sharer and the receiver, by their names in the hub."""

    sharer: str
    receiver: str

    def __str__(self) -> str:
        return f"{self.sharer}{_BETWEEN}{self.receiver}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`.

        Raises:
            FuserConfigError: another form.

        Example:
            >>> Direction.parse("gemma_to_qwen")
            Direction(sharer='gemma', receiver='qwen')
        """
        sharer, between, receiver = str(text).partition(_BETWEEN)
        if not (sharer and between and receiver):
            raise FuserConfigError(f"the direction {text!r} must have the form SHARER{_BETWEEN}RECEIVER.")
        return cls(sharer, receiver)


def all_directions(names: Sequence[str]) -> list[Direction]:
    """Every ordered pair of models."""
    return [Direction(sharer, receiver) for sharer, receiver in permutations(names, 2)]


def check_model_names(names: Iterable[str]) -> None:
    """Refuse names that the names of tensors and directions cannot contain.

    Raises:
        FuserConfigError: with the name.
    """
    for name in names:
        if not _NAME.fullmatch(name) or _BETWEEN in name or hasattr(nn.ModuleDict, name):
            raise FuserConfigError(
                f"a model of a hub cannot be named {name!r}: use letters, digits, `_` and `-`, without {_BETWEEN!r}."
            )


def check_directions(directions: Sequence[Direction], names: Sequence[str]) -> None:
    """Refuse directions between unknown models, of a model to itself, or given twice.

    Raises:
        FuserConfigError: with the direction.
    """
    if not directions:
        raise FuserConfigError("a hub needs at least one direction between two models.")
    for direction in directions:
        for name in (direction.sharer, direction.receiver):
            if name not in names:
                raise FuserConfigError(
                    f"the direction {direction} has the unknown model {name!r}; the hub's models are "
                    f"{', '.join(names)}.{did_you_mean(name, names)}"
                )
        if direction.sharer == direction.receiver:
            raise FuserConfigError(f"the direction {direction} leads from a model to itself.")
    if repeated := sorted({str(d) for d in directions if directions.count(d) > 1}):
        raise FuserConfigError(f"the directions {', '.join(repeated)} are given twice.")
