"""Choice of the layers that profit most and least from enrichment (paper, Fig. 4: Selective-Best, Selective-Worst)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rank_layers(scores: Float[np.ndarray, "questions layers"]) -> list[int]:
    """The layers by their mean score alone, best first; of equal layers the lower one first.

    Example:
        >>> rank_layers(np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
        [2, 1, 0]
    """
    return [int(layer) for layer in np.argsort(-np.asarray(scores).mean(0), kind="stable")]


def selected_layers(ranking: Sequence[int], count: int) -> Bool[Tensor, "subsets layers"]:
    """The best 1 to `count` layers, then the worst 1 to `count`, (2 count, layers).

    Example:
        >>> selected_layers([2, 0, 1], 2).int().tolist()
        [[0, 0, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]]
    """
    subsets = torch.zeros(2 * count, len(ranking), dtype=torch.bool)
    for n in range(count):
        subsets[n, list(ranking[: n + 1])] = True
        subsets[count + n, list(ranking[len(ranking) - n - 1 :])] = True
    return subsets


def split_in_halves(num_questions: int, seed: int) -> Bool[np.ndarray, " questions"]:
    """A random half of the questions, True for the second half."""
    is_second = np.zeros(num_questions, dtype=bool)
    is_second[np.random.default_rng(seed).permutation(num_questions)[num_questions // 2 :]] = True
    return is_second
