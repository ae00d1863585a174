"""The picture of a run: legends hide no curve, layers are whole numbers."""

import pytest
import torch

from c2c_lightning.training.callbacks.run_picture import RunPicture


@pytest.mark.parametrize(("num_sharers", "num_layers"), [(1, 1), (1, 4), (2, 30), (3, 61)])
def test_layers_are_whole_numbers_and_legends_are_outside(num_sharers: int, num_layers: int) -> None:
    picture = RunPicture()
    picture._train = [(step, torch.tensor(1.0 / step)) for step in range(1, 20)]
    picture._validation = [(10, {"val/loss": 0.5, "val/loss_mismatched": 0.7, "val/loss_receiver": 0.7})]
    figure = picture._figure(torch.randn(num_sharers, 2, num_layers))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
        inside = [n for n in axes.get_xticks() if axes.get_xlim()[0] <= n <= axes.get_xlim()[1]]
        assert 1 <= len(inside) <= 12
