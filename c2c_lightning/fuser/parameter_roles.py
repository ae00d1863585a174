"""The parameters of a fuser by their role for the optimizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from torch import nn


@dataclass(frozen=True)
class ParameterRoles:
    """The parameters of a fuser by their role for the optimizer; each in exactly one list.

    Attributes:
        weights: all other parameters.
        norms: norm parameters, see `FuserKind.norm_parameters`.
        gates: gate logits.
    """

    weights: list[nn.Parameter]
    norms: list[nn.Parameter]
    gates: list[nn.Parameter]

    @classmethod
    def of(
        cls, parameters: Iterable[nn.Parameter], norms: Iterable[nn.Parameter], gates: Iterable[nn.Parameter]
    ) -> Self:
        """The roles of `parameters`, those of the norms and of the gates among them."""
        norm_ids, gate_ids, roles = set(map(id, norms)), set(map(id, gates)), cls([], [], [])
        for parameter in parameters:
            is_gate, is_norm = id(parameter) in gate_ids, id(parameter) in norm_ids
            (roles.gates if is_gate else roles.norms if is_norm else roles.weights).append(parameter)
        return roles
