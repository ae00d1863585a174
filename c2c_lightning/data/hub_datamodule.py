"""The data module of a hub: rows for every direction, one batch of each in every step."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.data.loading.epoch_loader import EpochLoader
from c2c_lightning.data.loading.joint_loaders import JointLoaders
from c2c_lightning.data.loading.stream_loaders import is_stream
from c2c_lightning.data.loading.table_loaders import TableLoaders
from c2c_lightning.data.preprocessing.prepare import sources_of
from c2c_lightning.data.sources import Source
from c2c_lightning.errors import DataError

RowsBySharer = Mapping[str, Source] | Source


class HubDataModule(InstructionDataModule):
    """Conversations as training batches of several directions; resumable at every optimizer step.

    Every step has `batch_size` rows of every direction, each with epochs of its own, so the run is counted in steps:
    set `trainer.max_steps`.

    Args:
        train: the training data: one source for all directions, or a source for each model by its name, with rows that
            it can share.
        validation: the validation data, likewise; training rows with one of its prompts are dropped.
        validation_share: without `validation`, the share of training rows that is held out, chosen by their prompts.
        batch_size: rows per direction, batch and process.
        max_length: tokens of the longer model; longer rows are dropped and counted.
        num_workers: processes that read and pad the batches of a direction.
        seed: of the order of rows.
        max_rows: read only the first rows of each source.
        max_validation_rows: use no more rows of each direction for validation.
        max_bad_share: the share of rows of a source that may be unreadable; more fail the run.
        cache_dir: folder of encoded rows; default one in the cache of `datasets`.
    """

    def __init__(
        self,
        train: Source | dict[str, Source],
        validation: Source | dict[str, Source] | None = None,
        validation_share: float = 0.01,
        batch_size: int | None = None,
        max_length: int = 2048,
        num_workers: int = 0,
        seed: int = 42,
        max_rows: int | None = None,
        max_validation_rows: int | None = None,
        max_bad_share: float = 0.01,
        cache_dir: str | None = None,
    ) -> None:
        self.train_rows, self.validation_rows = train, validation
        super().__init__(
            _all_sources(train),
            None if validation is None else _all_sources(validation),
            validation_share,
            batch_size,
            max_length=max_length,
            num_workers=num_workers,
            seed=seed,
            max_rows=max_rows,
            max_validation_rows=max_validation_rows,
            max_bad_share=max_bad_share,
            cache_dir=cache_dir,
        )
        if any(is_stream(source) for source in sources_of(self.train)):
            raise DataError("a hub needs tables, whose rows are encoded for every direction: set `streaming: false`.")

    def prepare(self) -> None:
        """Read and encode all data for every direction; a second start reads the cache.

        Raises:
            DataError: when data is missing, too much of it is unreadable, or nothing is left.
        """
        if self._loaders is not None:
            return
        module = cast(Any, self.trainer).lightning_module
        lengths, sharers = module.context_lengths_by_direction, module.sharers_by_direction
        tables = {
            name: TableLoaders(
                _rows_of(self.train_rows, sharers[name]),
                None if self.validation_rows is None else _rows_of(self.validation_rows, sharers[name]),
                self._settings(encoder, lengths[name]),
            )
            for name, encoder in module.encoders.items()
        }
        self._loaders = JointLoaders(tables)
        self.report = self._loaders.report()
        self._log_report()

    def val_dataloader(self) -> Any:
        """Validation batches of one direction after the other."""
        loaders = cast(JointLoaders, self._prepared()).validation_loaders(self._processes())
        return [DirectionBatches(name, loader) for name, loader in loaders.items()]


class DirectionBatches:
    """Validation batches with the name of their direction."""

    def __init__(self, name: str, loader: EpochLoader) -> None:
        self.name, self.loader = name, loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[JointBatch]:
        for batch in self.loader:
            yield JointBatch({self.name: batch})


def _all_sources(rows: RowsBySharer) -> list[Source]:
    return list(rows.values()) if isinstance(rows, Mapping) else [rows]


def _rows_of(rows: RowsBySharer, sharer: str) -> Source:
    """The rows of the directions of a sharer.

    Raises:
        DataError: there are none.
    """
    if not isinstance(rows, Mapping):
        return rows
    if sharer not in rows:
        raise DataError(
            f"the data has no rows for the sharer {sharer!r}, but for {', '.join(rows)}. Add `{sharer}:` with a "
            "source, or leave out the directions from it."
        )
    return rows[sharer]
