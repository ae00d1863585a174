"""Training batches without end: blocks of examples, shuffled and cut in the workers of a data loader."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.encode import EncodedExample
from c2c_lightning.data.loading.block_reader import BlockReader, Part, lengths_of
from c2c_lightning.data.loading.epoch_loader import collate_for
from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.loading.row_stream import Place
from c2c_lightning.data.preprocessing.prepare import Settings
from c2c_lightning.errors import DataError


@dataclass
class Delivery:
    """What a reader hands over.

    Attributes:
        slot: which reader of this process it was.
        batch: the batch; None if there is an error instead.
        place: where the reader stands after this batch.
        error: why reading cannot go on.
    """

    slot: int
    batch: TrainingBatch | None
    place: Place
    error: str = ""


@dataclass
class ExampleStream(IterableDataset[Delivery]):
    """Training batches without end, for one process of several; its workers are the readers.

    Attributes:
        parts: where rows come from.
        how: the settings.
        block_rows: examples that are shuffled together.
        rank: which process this is.
        world_size: how many there are.
        asked: keys of questions that are validation data.
        places: where each reader of this process goes on.
        first_slot: whose turn it is.
    """

    parts: Sequence[Part]
    how: Settings
    block_rows: int
    rank: int = 0
    world_size: int = 1
    asked: Sequence[int] = ()
    places: list[Place] = field(default_factory=list)
    first_slot: int = 0

    @property
    def slots(self) -> int:
        """Readers of this process."""
        return max(1, self.how.num_workers)

    def __iter__(self) -> Iterator[Delivery]:
        """The batches of one reader."""
        worker = get_worker_info()
        # Data loaders ask their workers in turn, beginning with the first.
        slot = ((0 if worker is None else worker.id) + self.first_slot) % self.slots
        place = self.places[slot] if self.places else {}
        try:
            for batch, after in self._batches(slot, place):
                yield Delivery(slot, batch, after)
        except DataError as problem:
            # Raised in a worker, it would come with the worker's traceback in its message.
            yield Delivery(slot, None, place, str(problem))

    def _batches(self, slot: int, place: Place) -> Iterator[tuple[TrainingBatch, Place]]:
        reader, readers = self.rank * self.slots + slot, self.world_size * self.slots
        collate = collate_for(self.how.encoder)
        blocks = BlockReader(self.parts, self.how, self.block_rows, self.asked, reader, readers, place)
        number, done = place.get("block", 0), place.get("done", 0)
        while True:
            before = {**blocks.place(), "block": number}
            examples = blocks.read(number)
            after = {**blocks.place(), "block": number + 1, "done": 0}
            batches = self._cut(examples, reader, number)
            while done < len(batches):
                batch = collate([examples[row] for row in batches[done]])
                done += 1
                # In the middle of a block, its rows are read again; at its end they need not be.
                here = {**before, "done": done} if done < len(batches) else after
                yield batch, {**here, "seen": after["reports"]}
            number, done = number + 1, 0

    def _cut(self, examples: Sequence[EncodedExample], reader: int, block: int) -> list[list[int]]:
        """The batches of a block, a function of seed, reader and block alone."""
        random = np.random.default_rng([self.how.seed, reader, block])
        batches = cut_batches(random.permutation(len(examples)), lengths_of(examples), self.how.limits)
        return [batches[place].tolist() for place in random.permutation(len(batches))]
