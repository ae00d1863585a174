"""Modules of many layers, stacked by the shape of the layers."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class LayerStacks(nn.Module):
    """One module for each shape of layer; every parameter of it has the layers of that shape as first dimension.

    Attributes:
        stacks: the modules.
    """

    def __init__(self, shapes: Mapping[int, Hashable], build: Callable[[list[int], Any], nn.Module]) -> None:
        """Build the stacks.

        Args:
            shapes: shape of each layer.
            build: makes the module of some layers, ascending, of one shape.
        """
        super().__init__()
        layers: dict[Hashable, list[int]] = {}
        for layer, shape in shapes.items():
            layers.setdefault(shape, []).append(layer)
        self._layers = list(layers.values())
        self.stacks = nn.ModuleList([build(numbers, shape) for shape, numbers in layers.items()])

    def rows(self, layers: Sequence[int]) -> dict[str, Tensor]:
        """The parameters of some layers of one shape; rows may repeat, and gradients flow back."""
        if not layers:
            return {}
        number = next(n for n, stacked in enumerate(self._layers) if layers[0] in stacked)
        places = [self._layers[number].index(layer) for layer in layers]
        parameters: dict[str, Tensor] = dict(self.stacks[number].named_parameters())
        if places == list(range(len(self._layers[number]))):
            return parameters
        return {name: select_rows(parameter, places) for name, parameter in parameters.items()}


def select_rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of the first dimension; without an index tensor, whose copy to a GPU would be waited for."""
    parts = tensor.unbind(0)
    return torch.stack([parts[row] for row in rows])
