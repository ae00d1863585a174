"""Maps from a sharer's entries to a receiver's: a three-layer MLP as in the paper, a ridge map, the mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import DataError, FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.ridge_regression import solve_ridge

MIN_SCALE = 1e-3
"""Smallest scale of an input, in units of the mean scale of all inputs: some are nearly constant."""


@dataclass(frozen=True)
class EntryMapConfig:
    """Sizes of the MLPs; the defaults are those of the released recipe for this experiment.

    Attributes:
        hidden_dim: width of the hidden layers.
        num_layers: linear maps of each MLP.
        dropout: dropout probability after each hidden layer.
        ridge: penalty of the ridge map, as a multiple of the mean squared input.
    """

    hidden_dim: int = 1024
    num_layers: int = 3
    dropout: float = 0.1
    ridge: float = 0.01

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("hidden_dim",), 1, 2**20)
        check_range(self, ("num_layers",), 1, 100)
        if not 0 <= self.dropout < 1 or self.ridge <= 0:
            raise FuserConfigError(
                f"dropout is {self.dropout} and ridge {self.ridge}, but dropout must be in [0, 1) and ridge above 0."
            )


class EntryScales(nn.Module):
    """Means and scales by which inputs and targets are standardised; set before training.

    The targets have one scale for all dimensions, so that the error in standardised units is the mean squared error
    divided by a constant.
    """

    in_mean: Tensor
    in_scale: Tensor
    out_mean: Tensor
    out_scale: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        for side, dim in (("in", in_dim), ("out", out_dim)):
            self.register_buffer(f"{side}_mean", torch.zeros(dim))
            self.register_buffer(f"{side}_scale", torch.ones(dim if side == "in" else ()))

    def measure(self, x: Float[Tensor, "F inputs"], y: Float[Tensor, "F outputs"]) -> None:
        """Take means and scales of some tokens."""
        spread = x.std(0)
        self.in_mean.copy_(x.mean(0))
        self.in_scale.copy_(spread.clamp(min=float(MIN_SCALE * spread.mean()) or 1.0))
        self.out_mean.copy_(y.mean(0))
        self.out_scale.copy_(y.var(0).mean().sqrt().clamp(min=1e-12))

    def inputs(self, x: Float[Tensor, "F inputs"]) -> Float[Tensor, "F inputs"]:
        """Standardised inputs."""
        return (x - self.in_mean) / self.in_scale

    def targets(self, y: Float[Tensor, "F outputs"]) -> Float[Tensor, "F outputs"]:
        """Standardised targets."""
        return (y - self.out_mean) / self.out_scale

    def entries(self, targets: Float[Tensor, "F outputs"]) -> Float[Tensor, "F outputs"]:
        """The inverse of `targets`."""
        return targets * self.out_scale + self.out_mean


class EntryMLP(nn.Sequential):
    """Linear maps with layer norm, GELU and dropout between them, on standardised entries."""

    def __init__(self, in_dim: int, out_dim: int, config: EntryMapConfig) -> None:
        """Build it for the flattened heads of one layer's keys or values."""
        layers: list[nn.Module] = []
        width = in_dim
        for _ in range(config.num_layers - 1):
            hidden = config.hidden_dim
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(config.dropout)]
            width = hidden
        super().__init__(*layers, nn.Linear(width, out_dim))


class EntryMoments(nn.Module):
    """Sums over the training tokens, from which the ridge map and the mean follow; float64, in checkpoints."""

    count: Tensor
    in_sum: Tensor
    out_sum: Tensor
    gram: Tensor
    cross: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        shapes = {"count": (), "in_sum": (in_dim,), "out_sum": (out_dim,)}
        shapes |= {"gram": (in_dim, in_dim), "cross": (in_dim, out_dim)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def add(self, x: Float[Tensor, "F inputs"], y: Float[Tensor, "F outputs"]) -> None:
        """Add the standardised inputs and targets of some tokens."""
        # Products in float32 would leave a ridge map less exact than an MLP that is trained on the same tokens.
        with torch.autocast(x.device.type, enabled=False):
            x, y = x.double(), y.double()
            self.count += len(x)
            self.in_sum += x.sum(0)
            self.out_sum += y.sum(0)
            self.gram += x.T @ x
            self.cross += x.T @ y

    def mean(self) -> Float[Tensor, " outputs"]:
        """Mean standardised target."""
        return (self.out_sum / self.count.clamp(min=1)).float()

    def ridge_map(self, regularisation: float) -> nn.Linear:
        """The linear map with the least squared error and a penalty on its weight.

        Raises:
            DataError: fewer tokens than inputs.
        """
        inputs, outputs = self.cross.shape
        if self.count < inputs:
            raise DataError(
                f"a ridge map of entries of width {inputs} cannot be fitted on {int(self.count)} tokens. Train on more "
                "rows: raise `trainer.max_steps` or `data.batch_size`."
            )
        x_mean, y_mean = self.in_sum / self.count, self.out_sum / self.count
        gram = self.gram - self.count * torch.outer(x_mean, x_mean)
        cross = self.cross - self.count * torch.outer(x_mean, y_mean)
        weight = solve_ridge(gram, cross, regularisation)
        linear = nn.Linear(inputs, outputs, device=weight.device).requires_grad_(False)
        linear.weight.copy_(weight.T)
        linear.bias.copy_(y_mean - x_mean @ weight)
        return linear
