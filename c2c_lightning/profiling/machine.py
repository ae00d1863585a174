"""The machine's matrix-product rate, to which the rate of a step is compared."""

import torch


class MatrixProduct:
    """One square matrix product, the reference for rates.

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
