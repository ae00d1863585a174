"""The receiver as its own sharer: one model is loaded, trained with, saved and loaded again."""

from pathlib import Path

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.build_model import build_model
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.module import C2CModule
from tests.training.runs import SMALL, loader, trainer


def test_the_weights_are_loaded_once(models: Path, tmp_path: Path) -> None:
    receiver = LMSpec(str(models / "receiver"))
    made = C2CModule(receiver, [LMSpec(str(models / "receiver"))], FuserConfig(**SMALL))
    trainer(tmp_path, 2, [ExportFuser()]).fit(made, loader(made, [[1, 2], [3, 4]]))
    assert made.encoder.strategies == ("identity",)
    assert made.model.sharers[0] is made.model.receiver
    loaded = C2CModel.from_pretrained(tmp_path / "fuser")
    assert loaded.sharers[0] is loaded.receiver
    questions = [[{"role": "user", "content": "What is 3?"}]]
    assert loaded.chat(questions, max_new_tokens=3) == made.model.eval().chat(questions, max_new_tokens=3)


def test_other_models_are_loaded_on_their_own(models: Path) -> None:
    receiver = LMSpec(str(models / "receiver"))
    for other in (LMSpec(str(models / "sharer")), LMSpec(str(models / "receiver"), dtype="bfloat16")):
        built = build_model(receiver, [other], FuserConfig(**SMALL))
        assert built.sharers[0] is not built.receiver
    hidden = build_model(receiver, [receiver], FuserConfig(**SMALL, sharer_input="hidden"))
    assert hidden.sharers[0] is not hidden.receiver, "it records hidden states, the receiver does not"
