"""A fuser kind around another one, whose gates and norms are those of the kind within."""

from collections.abc import Iterator

from torch import Tensor, nn

from c2c_lightning.fuser.gate import Gate
from c2c_lightning.fuser.kind import FuserKind


class WrappingKind(FuserKind):
    """Base of kinds that compute something around another kind.

    Attributes:
        inner: the kind within.
    """

    inner: FuserKind

    @property
    def gates(self) -> list[Gate]:
        """See `FuserKind.gates`."""
        return self.inner.gates

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """See `FuserKind.draw_uniform`."""
        return self.inner.draw_uniform(num_layers, batch, tokens)

    def norm_parameters(self) -> Iterator[nn.Parameter]:
        """See `FuserKind.norm_parameters`."""
        return self.inner.norm_parameters()
