"""The compared views of a sharer for a latent receiver; training them takes minutes."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from benchmarks.latent_views import VIEWS, save_receiver, validation_loss
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.latent import SharerView
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.load_lm import load_frozen


@pytest.mark.parametrize("view", VIEWS.values())
def test_each_view_has_the_shapes_that_it_says(view: Any) -> None:
    receiver, sharer = LayerGeometry(1, 16, 8, is_latent=True), LayerGeometry(2, 6, 5)
    with patch.object(SharerView, "_sides", view):
        chosen = SharerView(receiver, sharer)
        seen = chosen(LayerKV(torch.zeros(1, 2, 3, 6), torch.zeros(1, 2, 3, 5)))
        assert (chosen.geometry.key_dim, chosen.geometry.value_dim) == (seen.keys.shape[-1], seen.values.shape[-1])


def test_the_receiver_is_latent_and_the_last_loss_is_read(tmp_path: Path) -> None:
    save_receiver(tmp_path)
    assert all(layer.is_latent for layer in load_frozen(str(tmp_path)).geometry.layers)
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,val/loss\n1,2.5\n2,\n3,1.5\n4,\n")
    assert validation_loss(run) == 1.5
