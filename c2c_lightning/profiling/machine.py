"""What the machine could do at best: its matrix-product rate, measured or from a data sheet."""

from dataclasses import dataclass

import torch


class MatrixProduct:
    """One square matrix product, the yardstick of rates.

    Attributes:
        flop: its operations.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make two random matrices of `size` rows and columns."""
        self._a, self._b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        self._out = torch.empty_like(self._a)
        self.flop = 2 * size**3

    def __call__(self, times: int = 1) -> None:
        """Multiply some times."""
        for _ in range(times):
            torch.mm(self._a, self._b, out=self._out)


@dataclass(frozen=True)
class Accelerator:
    """A GPU by its data sheet, for predictions.

    Attributes:
        name: what it is called.
        flop_rate: dense matrix products in the frozen models' type, in FLOP/s.
        fuser_flop_rate: likewise in the fuser's type, in FLOP/s.
        bandwidth: of its memory, in bytes/s.
        launch: seconds that a kernel's launch takes when PyTorch runs operation by operation.
    """

    name: str = "H100 SXM"
    flop_rate: float = 989e12  # bfloat16
    fuser_flop_rate: float = 494.5e12  # TF32 for a float32 fuser
    bandwidth: float = 3.35e12
    launch: float = 5e-6
