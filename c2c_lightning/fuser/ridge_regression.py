"""Linear least squares with a penalty, in closed form and float64: full maps, maps of bounded rank, and their scores.

Axes: F tokens, L target layers, S candidate source layers.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.errors import FuserConfigError

HELD_OUT = 0.2
"""Share of the tokens on which source layers are compared."""


def ridge_solution(
    features: Float[Tensor, "F inputs"], targets: Float[Tensor, "F outputs"], regularisation: float
) -> tuple[Float[Tensor, "inputs outputs"], Float[Tensor, " outputs"]]:
    """Weight and bias of the least-squares map with a penalty on the weight, in float64.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> weight, bias = ridge_solution(x, 3 * x + 1, 1e-9)
        >>> round(weight.item(), 3), round(bias.item(), 3)
        (3.0, 1.0)
    """
    x, y = features.double(), targets.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    weight = solve_ridge(x.T @ x, x.T @ y, regularisation)
    return weight, y_mean - x_mean @ weight


def solve_ridge(
    gram: Float[Tensor, "inputs inputs"], cross: Float[Tensor, "inputs outputs"], regularisation: float
) -> Float[Tensor, "inputs outputs"]:
    """The weight, from the products of centred features with themselves, which are changed, and with the targets."""
    # Relative to the mean feature, so that it means the same for keys of any size.
    gram.diagonal().add_(regularisation * gram.diagonal().mean().clamp(min=1e-12))
    return torch.cholesky_solve(cross, torch.linalg.cholesky(gram))


def main_outputs(
    features: Float[Tensor, "F inputs"], targets: Float[Tensor, "F outputs"], weight: Tensor, rank: int
) -> Float[Tensor, "outputs rank"]:
    """Orthonormal output directions of the best map of a rank (reduced-rank regression): weight @ basis @ basis.T.

    Args:
        features: as in `ridge_solution`.
        targets: as in `ridge_solution`.
        weight: its solution W.
        rank: number of directions.
    """
    x, y = features.double(), targets.double()
    # W^T X^T Y = W^T (X^T X + penalty) W: what each output direction of the full map explains.
    explained = weight.T @ (x - x.mean(0)).T @ (y - y.mean(0))
    basis: Tensor = torch.linalg.eigh((explained + explained.T) / 2).eigenvectors[:, -rank:]
    return basis


def best_sources(scores: Float[Tensor, "L S"], count: int) -> Int[Tensor, "L count"]:
    """For each target layer the numbers of the source layers with the highest scores, in increasing order.

    Raises:
        FuserConfigError: fewer sources than `count`.
    """
    if count > scores.shape[1]:
        raise FuserConfigError(
            f"num_sources is {count}, but the sharer has only {scores.shape[1]} layers of this shape."
        )
    return scores.topk(count, dim=1).indices.sort(1).values


def probe_scores(
    sources: Float[Tensor, "S F inputs"], targets: Float[Tensor, "L F outputs"], regularisation: float
) -> Float[Tensor, "L S"]:
    """R^2 on held-out tokens of the map from each source layer alone to each target layer."""
    held_out = max(1, int(HELD_OUT * sources.shape[1]))
    y = targets.double().transpose(0, 1)  # (F, L, outputs)
    train, test = y[:-held_out], y[-held_out:]
    spread = (test - train.mean(0)).square().sum((0, 2)).clamp(min=1e-12)
    scores = []
    for x in sources:
        weight, bias = ridge_solution(x[:-held_out], train.flatten(1), regularisation)
        error = (x[-held_out:].double() @ weight + bias).view_as(test) - test
        scores.append(1 - error.square().sum((0, 2)) / spread)
    return torch.stack(scores, 1)
