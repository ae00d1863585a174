"""Train, prove, ship and use Cache-to-Cache fusers (arXiv 2510.03215)."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from c2c_lightning import _renamed

# Imported at first use: the package itself starts without PyTorch, transformers and Lightning.
if TYPE_CHECKING:
    from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch
    from c2c_lightning.data.datamodule import InstructionDataModule
    from c2c_lightning.export.released.convert import convert_released, to_released
    from c2c_lightning.fuser.config import FuserConfig
    from c2c_lightning.model.c2c import C2CModel
    from c2c_lightning.model.chat_session import ChatSession
    from c2c_lightning.model.lm_spec import LMSpec
    from c2c_lightning.training.module import C2CModule

__all__ = [
    "C2CModel",
    "C2CModule",
    "ChatSession",
    "FuserConfig",
    "InstructionDataModule",
    "LMSpec",
    "PromptBatch",
    "SharerTokens",
    "TokenBatch",
    "TrainingBatch",
    "convert_released",
    "to_released",
]

_MODULES = {
    "C2CModel": "model.c2c",
    "C2CModule": "training.module",
    "ChatSession": "model.chat_session",
    "FuserConfig": "fuser.config",
    "InstructionDataModule": "data.datamodule",
    "LMSpec": "model.lm_spec",
    "PromptBatch": "data.batch",
    "SharerTokens": "data.batch",
    "TokenBatch": "data.batch",
    "TrainingBatch": "data.batch",
    "convert_released": "export.released.convert",
    "to_released": "export.released.convert",
}

_renamed.install()


def __getattr__(name: str) -> Any:
    if name == "Dialogue":
        warnings.warn("c2c_lightning.Dialogue is now ChatSession.", DeprecationWarning, stacklevel=2)
        name = "ChatSession"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
