"""Train, prove, ship and use Cache-to-Cache fusers (arXiv 2510.03215)."""

import importlib
import warnings
from typing import Any

from c2c_lightning import _renamed
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch
from c2c_lightning.export.released.convert import convert_released, to_released
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.lm_spec import LMSpec

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

_renamed.install()

# Imported when they are used: the method needs no Lightning.
_LIGHTNING = {"C2CModule": "training.module", "InstructionDataModule": "data.datamodule"}


def __getattr__(name: str) -> Any:
    if name == "Dialogue":
        warnings.warn("c2c_lightning.Dialogue is now ChatSession.", DeprecationWarning, stacklevel=2)
        return ChatSession
    if name not in _LIGHTNING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LIGHTNING[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
