"""Neighbours, two-sample classifier and t-SNE on known distributions."""

import numpy as np
import pytest
import torch

from c2c_lightning.analysis.transform.entry_mixing import classifier_accuracies, embed, neighbour_shares


def normal(n: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) * scale + shift


def test_two_samples_of_one_distribution_cannot_be_told_apart() -> None:
    first, second = normal(200, 6, 0), normal(200, 6, 1)
    assert np.mean(neighbour_shares(first, second)) == pytest.approx(0.5, abs=0.05)
    assert np.mean(classifier_accuracies(first, second)) == pytest.approx(0.5, abs=0.1)


def test_distant_sets_share_no_neighbours() -> None:
    first, second = normal(60, 6, 0), normal(60, 6, 1, shift=20.0)
    assert set(neighbour_shares(first, second)) == {0.0}
    assert np.mean(classifier_accuracies(first, second)) == 1.0


def test_the_classifier_sees_a_smaller_spread_around_the_same_mean() -> None:
    # The usual fault of a regression, which no linear classifier would find.
    first, second = normal(200, 12, 0, scale=0.5), normal(200, 12, 1)
    assert np.mean(classifier_accuracies(first, second)) > 0.85


def test_neighbours_equal_a_search_over_all_pairs() -> None:
    first, second = normal(12, 3, 0), normal(12, 3, 1)
    points = torch.cat([first, second])
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    nearest = distances.topk(5, largest=False).indices
    is_other = ((nearest >= 12) != (torch.arange(24) >= 12)[:, None]).double().mean(1)
    assert neighbour_shares(first, second) == pytest.approx(((is_other[:12] + is_other[12:]) / 2).tolist())


def test_equal_seeds_give_equal_numbers() -> None:
    sets = normal(40, 5, 0), normal(40, 5, 1, shift=0.5)
    assert classifier_accuracies(*sets, seed=3) == classifier_accuracies(*sets, seed=3)
    planes = [embed([*sets], perplexity=10.0, seed=3) for _ in range(2)]
    assert np.array_equal(planes[0][0], planes[1][0])


def test_sets_of_several_widths_share_one_plane() -> None:
    near, far, narrow = normal(30, 6, 0), normal(30, 6, 1, shift=30.0), normal(30, 4, 2)
    planes = embed([near, far, narrow], perplexity=8.0)
    assert [plane.shape for plane in planes] == [(30, 2)] * 3
    centres = [plane.mean(0) for plane in planes]
    spread = max(plane.std() for plane in planes)
    assert np.linalg.norm(centres[0] - centres[1]) > spread
