"""Keeps the caches of the frozen models during a training (`model.cache_frozen`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.preprocessing.tokenized_dataset import cache_folder
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.training._utils import model_of
from c2c_lightning.training.frozen_cache.cache_identity import CacheIdentity
from c2c_lightning.training.frozen_cache.common_prefix import CommonPrefix
from c2c_lightning.training.frozen_cache.disk_store import DiskStore
from c2c_lightning.training.frozen_cache.frozen_prefills import FrozenPrefills
from c2c_lightning.training.frozen_cache.kept_model import KeptModel, kept_models
from c2c_lightning.training.frozen_cache.kept_rows import WantedTokens, kept_rows
from c2c_lightning.training.frozen_cache.model_prefills import ModelPrefills
from c2c_lightning.training.frozen_cache.prefill_store import MemoryStore, PrefillStore
from c2c_lightning.training.frozen_cache.row_tokens import RowTokens
from c2c_lightning.training.frozen_cache.size_estimate import GB, SizeEstimate

SampledRows = list[tuple[list[RowTokens], WantedTokens]]
"""For each model the rows of a sample, and the tokens whose entries are kept."""

_SAMPLE = 256
"""Rows whose sizes are measured for the estimate."""


@dataclass(frozen=True)
class KeepSettings:
    """Where caches of frozen models are kept; see `C2CModule`."""

    where: Literal["memory", "disk"] | None
    limit_gb: float
    directory: str | None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.where not in ("memory", "disk", None):
            raise ConfigurationError(f"`cache_frozen` is {self.where!r}, but must be memory, disk or null.")
        if not self.limit_gb > 0:
            raise ConfigurationError(f"`cache_frozen_limit_gb` must be above 0, but is {self.limit_gb}.")
        if self.directory is not None and self.where != "disk":
            raise ConfigurationError("`cache_frozen_dir` is for `cache_frozen: disk` only. Set both, or neither.")

    def store(self, model: KeptModel, max_bytes: int, tokens: str, precision: str) -> PrefillStore:
        """The store of one model.

        Args:
            model: the model.
            max_bytes: limit of its size.
            tokens: fingerprint of the encoder.
            precision: of the trainer.

        Raises:
            FrozenCacheError: the directory is of other models, tokenizers or types.
        """
        if self.where == "memory":
            return MemoryStore(max_bytes)
        identity = CacheIdentity.of(model.lm, model.layout.layers, tokens, precision)
        default = cache_folder() / f"frozen-{identity.digest}"
        folder = default if self.directory is None else Path(self.directory).expanduser() / model.name
        identity.claim(folder)
        return DiskStore(folder, max_bytes)


class KeepPrefills(Callback):
    """Lets the prefill of a row that is used again be computed once; logs the size before, and the saving after.

    Args:
        settings: where the caches are kept.
    """

    def __init__(self, settings: KeepSettings) -> None:
        self.settings = settings

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the stores. Rows are computed when they are first used.

        Raises:
            ConfigurationError: the models' caches cannot be kept.
            FrozenCacheError: a limit that no row fits in, or a directory of other caches.
        """
        model = model_of(pl_module)
        models = kept_models(model)
        keeps_training_rows = self.settings.where == "disk" or uses_rows_again(trainer)
        sample = _sample(trainer)
        rows = None if sample is None else kept_rows(model, sample)
        estimate = self._estimate(trainer, models, rows, keeps_training_rows)
        rank_zero_info(f"Caches of the frozen models are kept ({self.settings.where}): {estimate.describe()}.")
        if not keeps_training_rows:
            rank_zero_info("No training row is used twice in this run: only those of validation rows are kept.")
        encoder: Any = pl_module.encoder
        tokens, precision = encoder.fingerprint, str(trainer.precision)
        prefixes = [_common_prefix(kept, rows, number) for number, kept in enumerate(models)]
        prefills = [
            ModelPrefills(kept, self.settings.store(kept, share, tokens, precision), prefix)
            for kept, share, prefix in zip(models, estimate.shares(), prefixes, strict=True)
        ]
        model.frozen_prefills = FrozenPrefills(prefills, keeps_training_rows)

    def _estimate(
        self, trainer: Trainer, models: Sequence[KeptModel], sample: SampledRows | None, keeps_training_rows: bool
    ) -> SizeEstimate:
        names, limit = [kept.name for kept in models], int(self.settings.limit_gb * GB)
        if sample is None:
            return SizeEstimate(names, None, None, limit)
        report = trainer.datamodule.report  # type: ignore[attr-defined]
        rows = report.validation_rows + (report.train_rows or 0 if keeps_training_rows else 0)
        tokens = [sum(map(len, wanted)) / len(wanted) for _, wanted in sample]
        sizes = [kept.token_bytes * count for kept, count in zip(models, tokens, strict=False)]
        return SizeEstimate(names, sizes, rows, limit)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write new rows, so that a resumed run finds them."""
        self._flush(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write new rows and log the saving."""
        self._flush(pl_module)
        if (prefills := model_of(pl_module).frozen_prefills) is not None:
            rank_zero_info(f"Kept caches: {prefills.describe()}.")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write new rows."""
        self._flush(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory."""
        if hasattr(pl_module, "model"):
            model_of(pl_module).frozen_prefills = None

    def _flush(self, pl_module: LightningModule) -> None:
        prefills = model_of(pl_module).frozen_prefills if hasattr(pl_module, "model") else None
        for model in [] if prefills is None else prefills.models:
            model.store.flush()


def _sample(trainer: Trainer) -> TrainingBatch | None:
    """Rows of the training data; None for data without a table."""
    data = getattr(trainer, "datamodule", None)
    return data.sample(_SAMPLE) if isinstance(data, InstructionDataModule) else None


def _common_prefix(kept: KeptModel, sample: SampledRows | None, number: int) -> CommonPrefix | None:
    """The tokens that all sampled rows of a sharer begin with; the receiver's prompts are short."""
    if sample is None or kept.name == "receiver":
        return None
    return CommonPrefix.of(kept.lm, sample[number][0], len(kept.layout.sides))


def uses_rows_again(trainer: Trainer) -> bool:
    """Whether a training is longer than an epoch, or may be: the length of a stream's is not known."""
    batches = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
    return math.isinf(trainer.num_training_batches) or batches > trainer.num_training_batches
