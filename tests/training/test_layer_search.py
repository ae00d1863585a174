"""`layer_alignment: correlated` and `answer`: the map is found at the start of `fit`, saved, never searched again."""

from pathlib import Path

import pytest
import torch

from c2c_lightning.cli import main
from c2c_lightning.errors import ConfigurationError, FuserConfigError
from c2c_lightning.export import load_fuser
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.training.module import C2CModule
from tests.training.runs import loader, module, trainer

FIT = str(Path(__file__).parents[1] / "conf" / "fit.yaml")
FOUND = pytest.mark.parametrize("alignment", ["correlated", "answer"])


@FOUND
def test_fit_finds_the_map_and_writes_it(alignment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["--model.fuser.layer_alignment", alignment]
    main(["fit", "--config", FIT, *chosen])
    saved = load_fuser("run/fuser")
    found = saved.description.config.layer_map
    assert found is not None
    assert saved.fuser.sharers[0].layer_map == found[0]
    first = 0 if alignment == "correlated" else len(found[0]) // 2
    assert all(source is None for source in found[0][:first])
    assert all(isinstance(source, int) for source in found[0][first:])
    model = C2CModel.from_pretrained("run/fuser")
    assert isinstance(model.chat([[{"role": "user", "content": "Where is it?"}]], max_new_tokens=2)[0], str)
    # A checkpoint knows its map: neither a resumed run nor a loaded module searches again.
    monkeypatch.setattr("c2c_lightning.training.module.found_layer_map", lambda *args: pytest.fail("searched again"))
    main(["fit", "--config", FIT, *chosen, "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_steps", "4"])
    assert load_fuser("run/fuser").description.config.layer_map == found
    loaded = C2CModule.load_from_checkpoint("run/checkpoints/last.ckpt")
    assert loaded.fuser_config.layer_map == found
    main(["validate", "--config", FIT, *chosen, "--ckpt_path", "run/checkpoints/last.ckpt"])


@FOUND
def test_without_rows_there_is_no_map(alignment: str, models: Path, tmp_path: Path) -> None:
    made = module(models, layer_alignment=alignment)
    with pytest.raises(ConfigurationError, match="on the rows of a data module"):
        trainer(tmp_path, 1).fit(made, loader(made, [[1, 2]]))
    with pytest.raises(FuserConfigError, match=f"{alignment}.*probe_answers"):
        module(models, layer_alignment=alignment).configure_model()


@pytest.mark.parametrize(("found", "alike"), [("correlated", "terminal"), ("answer", "upper_half")])
def test_a_baseline_needs_no_map(found: str, alike: str, models: Path) -> None:
    from c2c_lightning.training.baselines import LoraBaseline

    sizes = []
    for alignment in (found, alike):
        made = module(models, settings={"baseline": LoraBaseline()}, layer_alignment=alignment)
        made.configure_model()
        sizes.append(sum(parameter.numel() for parameter in made.parameters()))
    assert sizes[0] == sizes[1]
    assert FuserConfig(layer_alignment=found).layer_map is None  # type: ignore[arg-type]
    assert torch.tensor(sizes).min() > 0
