"""Standardisation, moments, and the ridge map in closed form."""

import pytest
import torch
from sklearn.linear_model import Ridge

from c2c_lightning.analysis.transform.entry_map import EntryMapConfig, EntryMLP, EntryMoments, EntryScales
from c2c_lightning.errors import DataError, FuserConfigError

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
Y = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) + X[:, :4] * 0.5 - 2


def test_the_ridge_map_is_that_of_scikit_learn() -> None:
    moments = EntryMoments(5, 4)
    for part in (slice(0, 7), slice(7, 60)):
        moments.add(X[part], Y[part])
    linear = moments.ridge_map(0.1)
    penalty = 0.1 * float(((X - X.mean(0)) ** 2).sum(0).mean())
    reference = Ridge(alpha=penalty).fit(X.double().numpy(), Y.double().numpy())
    assert torch.allclose(linear(X), torch.from_numpy(reference.predict(X.double().numpy())).float(), atol=1e-4)
    assert torch.allclose(moments.mean(), Y.mean(0), atol=1e-6)


def test_a_common_factor_of_the_moments_changes_no_map() -> None:
    moments = EntryMoments(5, 4)
    moments.add(X, Y)
    before = moments.ridge_map(0.1).weight
    for moment in moments.buffers():
        moment.mul_(0.5)
    assert torch.allclose(before, moments.ridge_map(0.1).weight, atol=1e-6)


def test_fewer_tokens_than_inputs_are_refused() -> None:
    moments = EntryMoments(5, 4)
    moments.add(X[:4], Y[:4])
    with pytest.raises(DataError, match="width 5 cannot be fitted on 4 tokens"):
        moments.ridge_map(0.1)


def test_standardised_errors_are_errors_in_units_of_the_variance() -> None:
    scales = EntryScales(5, 4)
    scales.measure(X, Y)
    inputs = scales.inputs(X)
    assert torch.allclose(inputs.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(inputs.std(0), torch.ones(5), atol=1e-5)
    assert torch.allclose(scales.targets(Y).var(0).mean(), torch.ones(()), atol=1e-5)
    assert torch.allclose(scales.entries(scales.targets(Y)), Y, atol=1e-5)


def test_constant_inputs_are_not_divided_by_zero() -> None:
    scales = EntryScales(5, 4)
    constant = X.clone()
    constant[:, 2] = 3.0
    scales.measure(constant, Y)
    assert scales.inputs(constant).abs().max() < 10
    scales.measure(torch.ones(60, 5), torch.ones(60, 4))
    assert bool(torch.isfinite(scales.inputs(torch.ones(3, 5))).all())


def test_mlps_have_as_many_linear_maps_as_configured() -> None:
    mlp = EntryMLP(5, 4, EntryMapConfig(hidden_dim=7))
    linears = [tuple(part.weight.shape) for part in mlp if isinstance(part, torch.nn.Linear)]
    assert linears == [(7, 5), (7, 7), (4, 7)]


@pytest.mark.parametrize("wrong", [{"hidden_dim": 0}, {"num_layers": 0}, {"dropout": 1.0}, {"ridge": 0.0}])
def test_impossible_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(FuserConfigError):
        EntryMapConfig(**wrong)  # type: ignore[arg-type]
