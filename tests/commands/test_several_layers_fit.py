"""`lightning fit` of a fuser that reads several layers: they are found, then the weights are trained."""

from pathlib import Path

import pytest

from c2c_lightning.cli import main
from c2c_lightning.export import load_fuser
from c2c_lightning.model.c2c import C2CModel

FIT = str(Path(__file__).parents[1] / "conf" / "fit.yaml")


def test_fit_finds_the_layers_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = '{"num_sources": 2, "num_tokens": 300}'
    main(["fit", "--config", FIT, "--model.fuser.kind", "several_layers", "--model.fuser.options", options])
    saved = load_fuser("run/fuser")
    layers = saved.fuser.sharers[0].groups[0].sharer_layers
    pairs = [tuple(layers[n : n + 2]) for n in range(0, len(layers), 2)]
    assert all(low < high for low, high in pairs), "two different layers for each"
    assert saved.description.training is not None
    assert saved.description.training.steps == 3
    model = C2CModel.from_pretrained("run/fuser")
    assert isinstance(model.chat([[{"role": "user", "content": "Where is it?"}]], max_new_tokens=2)[0], str)
