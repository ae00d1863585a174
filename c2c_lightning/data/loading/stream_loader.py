"""Training batches from an endless stream, resumed exactly at any optimizer step.

Every process reads and encodes the whole stream and takes its batches of each step. That costs little next to
training (an encoder makes thousands of rows a second), and the rows of a step depend on the global batch alone.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochProgress
from c2c_lightning.data.loading.block_reader import BlockReader, StreamPart, lengths_of
from c2c_lightning.data.loading.epoch_loader import collate_for
from c2c_lightning.data.loading.resumable_loader import ResumableLoader
from c2c_lightning.data.loading.row_stream import Position
from c2c_lightning.data.loading.step_plan import Processes, StepSize
from c2c_lightning.data.preprocessing.data_report import SourceReport
from c2c_lightning.data.preprocessing.prepare import Settings
from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

# The trainer fetches one batch ahead; a few more do no harm.
_REMEMBERED = 8


@dataclass
class StreamItem:
    """A batch of a stream, with the position after the last step that it completes; or an error in place of a batch."""

    batch: TrainingBatch | None
    position: Position
    error: str = ""


@dataclass
class BatchStream(IterableDataset[StreamItem]):
    """Training batches without end, for one process of several.

    Blocks of `block_rows` examples, rounded up to whole optimizer steps, are shuffled and cut into steps as the rows of
    an epoch are.
    """

    parts: Sequence[StreamPart]
    settings: Settings
    block_rows: int
    processes: Processes
    validation_keys: Sequence[int] = ()
    position: Position = field(default_factory=dict)

    @property
    def size(self) -> StepSize:
        """The size of an optimizer step."""
        return StepSize.of(self.settings.limits, self.processes.world_size * self.processes.accumulate)

    def __iter__(self) -> Iterator[StreamItem]:
        """The batches of this process."""
        try:
            yield from self._items()
        except DataError as problem:
            # Raised in a worker, it would have the worker's traceback in its message.
            yield StreamItem(None, self.position, str(problem))

    def _items(self) -> Iterator[StreamItem]:
        settings = self.settings
        collate = collate_for(settings.encoder)
        step_rows = self.size.rows or 1
        block_rows = -(-self.block_rows // step_rows) * step_rows
        blocks = BlockReader(self.parts, settings, block_rows, self.validation_keys, self.position)
        number, done = self.position.get("block", 0), self.position.get("steps", 0)
        last = self.position
        while True:
            before = {**blocks.position(), "block": number}
            examples = blocks.read(number)
            after = {**blocks.position(), "block": number + 1, "steps": 0}
            sampler = BatchSampler(lengths_of(examples), settings.limits, settings.seed, *self.processes)
            steps = sampler.remaining(EpochProgress(number))
            for place in range(done, len(steps)):
                # In the middle of a block, its rows are read again; at its end they need not be.
                here = {**before, "steps": place + 1} if place + 1 < len(steps) else after
                here["seen"] = after["reports"]
                *others, final = sampler.deal(steps[place])
                for rows, position in [*((rows, last) for rows in others), (final, here)]:
                    yield StreamItem(collate([examples[row] for row in rows]), position)
                last = here
            number, done = number + 1, 0


class StreamLoader(ResumableLoader):
    """The batches of one process, without end."""

    def __init__(self, stream: BatchStream) -> None:
        super().__init__()
        self._stream = stream
        self._items: Iterator[StreamItem] | None = None
        self._seen, self._epoch, self._before_epoch = 0, 0, 0
        # (batches seen, position after them). The worker and the trainer fetch ahead, so that the position after the
        # batches that were trained on is one of the last few.
        self._history: deque[tuple[int, Position]] = deque([(0, stream.position)], maxlen=_REMEMBERED)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """The batches after the last one; a second iteration continues the first."""
        self._is_resumed = False
        if self._items is None:
            self._items = iter(self._loader())
        for item in self._items:
            if item.batch is None:
                raise DataError(item.error)
            self._seen += 1
            self._history.append((self._seen, item.position))
            yield item.batch

    def set_epoch(self, epoch: int) -> None:
        """Count batches from 0 in an epoch, if the trainer ends epochs by `limit_train_batches`."""
        epoch = self._data_epoch(epoch, self._epoch)
        if epoch != self._epoch:
            self._epoch, self._before_epoch = epoch, self._seen
        self.on_epoch(False)

    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """The position of the stream, in whole optimizer steps."""
        seen = min(self._before_epoch + done, self._seen)
        position = next((position for count, position in self._history if count == seen), self._history[-1][1])
        return {
            "epoch": self._epoch,
            "batches": done,
            "steps": done // self._stream.processes.accumulate,
            "size": list(self._stream.size),
            "is_over": done >= limit,
            "position": position,
        }

    def resume(self, states: Sequence[dict[str, Any]]) -> int:
        """Continue after the position of a checkpoint."""
        state = states[0]
        position = state.get("position", {})  # version 0.1 kept positions of each reader
        if state.get("size") != list(self._stream.size):
            logger.warning(
                "Optimizer steps have another size than those of the checkpoint (rows over all processes and "
                "accumulated batches). The stream continues at about the same row: near it some rows will come twice "
                "and others not at all."
            )
        self._stream = replace(self._stream, position=position)
        self._history = deque([(0, position)], maxlen=_REMEMBERED)
        self._epoch, self._is_resumed = state["epoch"] + int(state["is_over"]), True
        done = int(state["batches"])
        if not state["is_over"] and "steps" in state:
            done = state["steps"] * self._stream.processes.accumulate
        self._before_epoch = 0 if state["is_over"] else -done
        return done

    def reports(self) -> list[SourceReport]:
        """Rows that were read and dropped so far; equal in all processes."""
        return [SourceReport.from_dict(values) for values in self._history[-1][1].get("seen", [])]

    def _loader(self) -> DataLoader[StreamItem]:
        return DataLoader(
            self._stream,
            batch_size=None,
            # More workers would all read the same rows.
            num_workers=min(1, self._stream.settings.num_workers),
            # A separate generator: iterating must not advance the random numbers of the training.
            generator=torch.Generator(),
        )
