"""Baselines of C2C: the same rows, optimizer and schedule, but something else is trained."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.errors import CheckpointError
from c2c_lightning.training.baselines.baseline import Baseline
from c2c_lightning.training.baselines.fine_tuning import FullFineTuning, PartialFineTuning
from c2c_lightning.training.baselines.lora import LoraBaseline
from c2c_lightning.training.baselines.mismatched_caches import MismatchedCaches

__all__ = ["Baseline", "FullFineTuning", "LoraBaseline", "MismatchedCaches", "PartialFineTuning", "baseline_of"]

_KNOWN = {known.__name__: known for known in (FullFineTuning, LoraBaseline, MismatchedCaches, PartialFineTuning)}


def baseline_of(settings: Mapping[str, Any]) -> Baseline | None:
    """A baseline from its `settings`; None for those of a fuser's training.

    Raises:
        CheckpointError: a baseline of another version or of the user's own.
    """
    if not settings:
        return None
    values = {name: value for name, value in settings.items() if name != "class"}
    if settings.get("class") not in _KNOWN:
        raise CheckpointError(
            f"The checkpoint was trained with the baseline {settings.get('class')!r}, which this version does not "
            f"know. Known are {', '.join(_KNOWN)}; pass another one as `baseline`."
        )
    return _KNOWN[settings["class"]](**values)
