"""The rotary tables of a stack of layers."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.kv.rotary import LayerRotary, rotate


class RotaryTables(nn.Module):
    """Applies and undoes the rotary embedding of L stacked layers; not saved, since it belongs to the language model.

    Attributes:
        frequencies: (L, k, P) for k tables of each layer; always float32, since half precision would change positions.
        interleaved: which dimensions form a pair.
    """

    frequencies: Tensor

    def __init__(self, layers: Sequence[LayerRotary], per_layer: int = 1, device: torch.device | None = None) -> None:
        """Stack the tables of some layers.

        Args:
            layers: L k of them.
            per_layer: k, the tables of each layer of the stack.
            device: where they are used.

        Raises:
            FuserConfigError: layers that are rotated in different dimensions.
        """
        super().__init__()
        rotated = [layer for layer in layers if layer.frequencies]
        shapes = {(len(layer.frequencies), layer.interleaved) for layer in rotated}
        if len(shapes) > 1:
            raise FuserConfigError(
                f"layers of one shape have rotary embeddings over different dimensions ({sorted(shapes)}: pairs, "
                "interleaved), which `rotary_free` cannot stack. Use another fuser kind for this pair."
            )
        pairs, self.interleaved = next(iter(shapes), (0, False))
        table = torch.zeros(len(layers), pairs, device=device)
        for n, layer in enumerate(layers):  # zero where a layer is not rotated
            if layer.frequencies:
                table[n] = torch.tensor(layer.frequencies)
        # Layers first, as in every tensor of a stack.
        self.register_buffer("frequencies", table.unflatten(0, (-1, per_layer)), persistent=False)

    def redo(self, keys: Float[Tensor, "L F H D"], position: Int[Tensor, " F"]) -> Tensor:
        """Keys at some positions from position-free ones."""
        return rotate(keys, self._angle(position), self.interleaved)

    def undo(self, keys: Float[Tensor, "L F H D"], position: Int[Tensor, " F"]) -> Tensor:
        """Position-free keys: those of position 0."""
        return rotate(keys, -self._angle(position), self.interleaved)

    def _angle(self, position: Tensor) -> Float[Tensor, "L F 1 P"]:
        position = position.to(self.frequencies.device, torch.float32)
        return (position[:, None] * self.frequencies.flatten(0, 1)[:, None]).unsqueeze(-2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows its owner to another device, but not to another type."""
        before = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not (before.is_meta or self.frequencies.is_meta):
            self.frequencies = before.to(self.frequencies.device)
        return self
