"""Train, prove, ship and use Cache-to-Cache fusers (arXiv 2510.03215)."""

from c2c_lightning import _renamed
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch
from c2c_lightning.export.released.convert import convert_released, to_released
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.lm_spec import LMSpec

__all__ = [
    "C2CModel",
    "ChatSession",
    "FuserConfig",
    "LMSpec",
    "PromptBatch",
    "SharerTokens",
    "TokenBatch",
    "TrainingBatch",
    "convert_released",
    "to_released",
]

_renamed.install()
