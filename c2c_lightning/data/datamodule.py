"""The Lightning data module: sources in, batches for a pair of models out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.loading.epoch_loader import EpochLoader
from c2c_lightning.data.loading.resumable_loader import ResumableLoader
from c2c_lightning.data.loading.step_plan import Processes
from c2c_lightning.data.loading.stream_loaders import StreamLoaders, is_stream
from c2c_lightning.data.loading.table_loaders import Loaders, TableLoaders
from c2c_lightning.data.preprocessing.data_report import DataReport
from c2c_lightning.data.preprocessing.prepare import Settings, sources_of
from c2c_lightning.data.preprocessing.tokenized_dataset import cache_folder
from c2c_lightning.data.row_lengths import BatchLimits
from c2c_lightning.data.sources import Mixture, Source
from c2c_lightning.data.trainer_settings import check_stream_ends, check_validation_interval
from c2c_lightning.errors import DataError

# Rows per device as in the paper (A.3.5: 4 x 8 GPUs x 8 accumulation), if neither limit is given.
_BATCH_SIZE = 4
# Part of the key of checkpoints: raise it when the same settings give other batches.
_ORDER_VERSION = 2


class InstructionDataModule(L.LightningDataModule):
    """Conversations as training batches: encoded once, batched by length, resumable at every optimizer step.

    The rows of an optimizer step depend on the global batch alone: `batch_size` times the number of processes times
    `accumulate_grad_batches`. One process with 8 rows, two with 4, or one with 4 and two accumulated batches train on
    equal rows in every step, and a checkpoint of one of them is continued exactly by the others. Under a token budget
    the same holds for equal products of processes and accumulated batches. `use_distributed_sampler` has no effect.

    Args:
        train: the training data: a source, several (each row once per epoch), or a mixture.
        validation: the validation data; training rows with one of its prompts are dropped.
        validation_share: without `validation`, the share of training rows that is held out, chosen by their prompts.
        batch_size: rows per batch and process; 4 if `max_tokens_per_batch` is not given either (paper A.3.5).
        max_tokens_per_batch: tokens per batch and process, over all models, padding included.
        max_length: tokens of the longer model; longer rows are dropped and counted (paper A.3.5: 2,048), and so are
            rows that are longer than a model's context.
        num_workers: processes that read and pad batches; a stream uses one at most.
        seed: of the order of rows (paper A.3.5: 42).
        max_rows: read only the first rows of each training source (the paper takes 500,000 of OpenHermes-2.5).
        max_validation_rows: use no more rows for validation.
        max_bad_share: the share of rows of a source that may be unreadable; more fail the run.
        stream_rows: rows of a stream that are read ahead and shuffled together.
        cache_dir: folder of encoded rows; default one in the cache of `datasets`.
        encoder: encodes conversations; default that of the Lightning module.
    """

    def __init__(
        self,
        train: Source | Mixture | list[Source],
        validation: Source | list[Source] | None = None,
        validation_share: float = 0.01,
        batch_size: int | None = None,
        max_tokens_per_batch: int | None = None,
        max_length: int = 2048,
        num_workers: int = 0,
        seed: int = 42,
        max_rows: int | None = None,
        max_validation_rows: int | None = None,
        max_bad_share: float = 0.01,
        stream_rows: int = 4096,
        cache_dir: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise DataError(f"`validation_share` must be at least 0 and below 1, but is {validation_share}.")
        for name, value in (("batch_size", batch_size), ("max_tokens_per_batch", max_tokens_per_batch)):
            if value is not None and value < 1:
                raise DataError(f"`{name}` must be at least 1, but is {value}.")
        self.train, self.validation, self.validation_share = train, validation, validation_share
        self.batch_size = _BATCH_SIZE if batch_size is None and max_tokens_per_batch is None else batch_size
        self.max_tokens_per_batch = max_tokens_per_batch
        self.max_length = max_length
        self.num_workers = num_workers
        self.seed = seed
        self.max_rows, self.max_validation_rows = max_rows, max_validation_rows
        self.max_bad_share = max_bad_share
        self.stream_rows = stream_rows
        self.cache_dir = cache_dir
        self.report = DataReport()
        self._logged = ""
        self._encoder = encoder
        self._loaders: Loaders | None = None
        self._loader: ResumableLoader | None = None
        self._resume: dict[str, Any] | None = None
        self._done: int | None = None  # batches of a resumed epoch that the trainer has to count as done

    @property
    def encoder(self) -> Encoder:
        """The encoder that was given, or that of the Lightning module."""
        module = getattr(self.trainer, "lightning_module", None)
        encoder: Encoder | None = self._encoder or getattr(module, "encoder", None)
        if encoder is None:
            raise DataError("The data module needs an encoder: give `encoder`, or a Lightning module that has one.")
        return encoder

    @property
    def description(self) -> str:
        """The training data by name, for the model card of a fuser."""
        return " + ".join(_public_name(source) for source in sources_of(self.train))

    def setup(self, stage: str) -> None:
        """Check that the data is there, before Lightning makes the models.

        Raises:
            DataError: naming the data that is missing.
        """
        for source in [*sources_of(self.train), *sources_of(self.validation or [])]:
            source.check()

    def prepare(self) -> None:
        """Read and encode all data; a second start reads the cache.

        Not in `setup`: the encoder of a Lightning module may need its models, which are made later.

        Raises:
            DataError: when data is missing, too much of it is unreadable, or nothing is left.
        """
        if self._loaders is not None:
            return
        module = getattr(self.trainer, "lightning_module", None)
        settings = self._settings(self.encoder, getattr(module, "context_lengths", ()))
        if any(is_stream(source) for source in sources_of(self.train)):
            self._loaders = StreamLoaders(self.train, self.validation, settings, self.stream_rows)
        else:
            self._loaders = TableLoaders(self.train, self.validation, settings)
        self.report = self._loaders.report()
        self._log_report()

    def train_dataloader(self) -> Any:
        """Training batches; after a restart those after the checkpoint."""
        loaders = self._prepared()
        loader = loaders.train_loader(self._processes())
        if not isinstance(loader, EpochLoader) and self.trainer is not None:
            check_stream_ends(self.trainer)
        loader.on_epoch = self._on_epoch
        if self._resume is None:
            loader.set_epoch(0 if self.trainer is None else self.trainer.current_epoch)
        else:
            self._resume_loader(loader, self._resume)
        self._resume, self._loader = None, loader
        if self.trainer is not None:
            check_validation_interval(self.trainer, len(loader) if isinstance(loader, EpochLoader) else math.inf)
        return loader

    def val_dataloader(self) -> Any:
        """Validation batches, the same in every epoch; none without validation rows."""
        loader = self._prepared().validation_loader(self._processes())
        return [] if loader is None else loader

    def sample(self, count: int) -> TrainingBatch | None:
        """Training rows from all parts of the data, as one batch; None for a stream."""
        return self._prepared().sample(count)

    def held_out_batches(self) -> Any:
        """All validation batches, for any number of processes; none without validation rows."""
        loader = self._prepared().validation_loader(Processes())
        return [] if loader is None else loader

    def teardown(self, stage: str) -> None:
        """Log the counts of rows again where training has changed them: those of a stream."""
        if stage == "fit" and self._loaders is not None:
            self._update_report()
            self._log_report()

    def _log_report(self) -> None:
        """Log the counts of rows, unless they were logged already."""
        if (text := self.report.to_text()) != self._logged:
            self._logged = text
            rank_zero_info(f"Data: {text}")

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, and the counts of rows."""
        self._update_report()
        state: dict[str, Any] = {"report": self.report.to_dict()}
        if self._loader is not None and self.trainer is not None:
            # Batches that were trained on, also while the callbacks of the last one still run.
            done = self.trainer.fit_loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
            state["places"] = [self._loader.state(done, self.trainer.num_training_batches)]
            state["data"] = self._data_key()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the position until the loader is made."""
        # Lightning restores data modules before it asks for loaders.
        self._resume = state_dict if "places" in state_dict else None

    def _resume_loader(self, loader: ResumableLoader, state: dict[str, Any]) -> None:
        if state["data"] != self._data_key():
            rank_zero_warn(
                "The data or its order differ from those of the checkpoint. Training continues at the same step, but "
                "some rows of this epoch will come twice and others not at all."
            )
        self._done = loader.resume(state["places"])

    def _update_report(self) -> None:
        if self._loaders is not None and self._loader is not None and (seen := self._loader.reports()):
            self.report = self._loaders.report(seen)

    def _data_key(self) -> list[Any]:
        """The settings that the order of rows depends on, except the size of optimizer steps."""
        assert self._loaders is not None
        settings = [self.max_length, self.max_rows, self.seed, self.validation_share]
        return [_ORDER_VERSION, self._loaders.fingerprint, *settings]

    def _on_epoch(self, has_new_length: bool) -> None:
        """Set the trainer's counts of batches of an epoch, which it reads from a checkpoint or determines only once."""
        if self.trainer is None or self.trainer.fit_loop._data_fetcher is None:
            return
        loop = self.trainer.fit_loop
        if self._done is not None:
            progress: Any = loop.epoch_loop.batch_progress.current
            change = self._done - progress.processed
            for counter in ("ready", "started", "processed", "completed"):
                setattr(progress, counter, getattr(progress, counter) + change)
            self._done = None
        if not has_new_length:
            return
        assert loop._data_fetcher is not None
        loop._data_fetcher.length = loop.max_batches = len(loop._data_fetcher.combined_loader)
        if isinstance(self.trainer.val_check_interval, float) and self.trainer.val_check_batch is not None:
            self.trainer.val_check_batch = max(1, int(loop.max_batches * self.trainer.val_check_interval))

    def _prepared(self) -> Loaders:
        self.prepare()
        assert self._loaders is not None
        return self._loaders

    def _processes(self) -> Processes:
        trainer = self.trainer
        if trainer is None:
            return Processes()
        return Processes(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)

    def _settings(self, encoder: Encoder, context_lengths: Sequence[int | None]) -> Settings:
        return Settings(
            encoder=encoder,
            cache_dir=cache_folder(self.cache_dir),
            limits=BatchLimits(self.batch_size, self.max_tokens_per_batch),
            max_length=self.max_length,
            context_lengths=tuple(context_lengths),
            max_rows=self.max_rows,
            max_validation_rows=self.max_validation_rows,
            validation_share=self.validation_share,
            max_bad_share=self.max_bad_share,
            num_workers=self.num_workers,
            seed=self.seed,
        )


def _public_name(source: Source) -> str:
    """The name of a data set on the hub, or of a local file without its folders."""
    name = getattr(source, "path", source.name)
    path = Path(name).expanduser()
    is_local = path.is_absolute() or path.exists() or "*" in name
    return path.name if is_local else str(name)
