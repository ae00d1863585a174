"""C2C-C from YAML to the authors' layout: fit, its fuser, convert both ways, go on from the checkpoint."""

from pathlib import Path

import pytest
import yaml

from c2c_lightning.cli import main
from c2c_lightning.export import load_fuser
from c2c_lightning.training.module import C2CModule
from tests.export.released.authors_files import same_released

FIT = str(Path(__file__).parent.parent / "conf" / "fit.yaml")


@pytest.mark.slow
def test_fit_convert_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # `span` is ours alone.
    overlay = {
        "kind": "c2c_c",
        "token_alignment": "longest",
        "complex": {"weight_hidden_dim": 9, "receiver_share": "rest"},
    }
    Path("complex.yaml").write_text(yaml.safe_dump({"model": {"fuser": overlay}}))
    main(["fit", "--config", FIT, "--config", "complex.yaml", "--model.fuser.complex.weight_features", "both"])
    config = load_fuser("run/fuser").description.config
    assert (config.kind, config.complex.weight_hidden_dim, config.complex.weight_features) == ("c2c_c", 9, "both")
    assert "gate/sharer_0/layer_00/key" in Path("run/metrics.csv").read_text()
    assert C2CModule.load_from_checkpoint("run/checkpoints/last.ckpt").fuser_config.complex == config.complex
    main(["convert", "--input", "run/fuser", "--output_dir", "theirs", "--to", "released"])
    main(["convert", "--input", "theirs", "--output_dir", "ours"])
    main(["convert", "--input", "ours", "--output_dir", "again", "--to", "released"])
    same_released(Path("theirs/final"), Path("again/final"))
    main(
        [
            "fit",
            "--config",
            "run/fit_config.yaml",
            "--ckpt_path",
            "run/checkpoints/last.ckpt",
            "--trainer.max_steps",
            "4",
        ]
    )
