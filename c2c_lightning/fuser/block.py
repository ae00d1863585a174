"""The block that all parts of a fuser are made of."""

import torch.nn.functional as F
from torch import Tensor, nn

from c2c_lightning.fuser.rms_norm import StackedRMSNorm
from c2c_lightning.fuser.stacked import StackedLinear


class Block(nn.Module):
    """`x + w2(gelu(w1(rmsnorm(x))))`, no bias."""

    def __init__(self, num_layers: int, dim: int, inner_dim: int, dropout: float) -> None:
        """Make blocks of width `dim` and inner width `inner_dim`."""
        super().__init__()
        self.norm = StackedRMSNorm(num_layers, dim)
        self.w1 = StackedLinear(num_layers, dim, inner_dim, bias=False)
        self.w2 = StackedLinear(num_layers, inner_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, dim) to the same shape."""
        update: Tensor = self.dropout(self.w2(F.gelu(self.w1(self.norm(x)))))
        return x + update
