"""Fusers on disk: our directory, its model card, and the published layout of the paper's authors."""

from c2c_lightning.export.description import FuserDescription, ModelReference, TrainingRecord
from c2c_lightning.export.format import SavedFuser, load_fuser, save_fuser
from c2c_lightning.export.pair_check import check_models
from c2c_lightning.export.released.convert import convert_released, to_released

__all__ = [
    "FuserDescription",
    "ModelReference",
    "SavedFuser",
    "TrainingRecord",
    "check_models",
    "convert_released",
    "load_fuser",
    "save_fuser",
    "to_released",
]
