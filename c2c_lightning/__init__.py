"""Train, prove, ship and use Cache-to-Cache fusers (arXiv 2510.03215)."""

from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch
from c2c_lightning.export.published import convert_released, to_released
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.dialogue import Dialogue
from c2c_lightning.model.frozen import LMSpec

__all__ = [
    "C2CModel",
    "Dialogue",
    "FuserConfig",
    "LMSpec",
    "PromptBatch",
    "SharerTokens",
    "TokenBatch",
    "TrainingBatch",
    "convert_released",
    "to_released",
]
