"""A loader over an endless stream that knows where its readers stood after any batch that was trained on."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.loading.example_stream import Delivery, ExampleStream
from c2c_lightning.data.loading.row_stream import Place
from c2c_lightning.data.preprocessing.data_report import SourceReport
from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

# The trainer fetches one batch ahead; a few more do no harm.
_REMEMBERED = 8


class StreamLoader:
    """The batches of one process, without end.

    The state is not what the readers have read but what was trained on: workers and trainer fetch ahead.

    Args:
        stream: makes the batches.
    """

    def __init__(self, stream: ExampleStream) -> None:
        self.on_new_length: Callable[[], None] = lambda: None
        self._stream = stream
        self._batches: Iterator[Delivery] | None = None
        self._places: list[Place] = list(stream.places) or [{} for _ in range(stream.slots)]
        self._next_slot, self._seen = stream.first_slot, 0
        self._epoch, self._before_epoch = 0, 0
        # (batches seen, whose turn it is, where each reader stands)
        self._history: deque[tuple[int, int, list[Place]]] = deque(maxlen=_REMEMBERED)

    @property
    def sampler(self) -> "StreamLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def __iter__(self) -> Iterator[TrainingBatch]:
        """What comes after the last batch; a second iteration goes on and does not begin again."""
        if self._batches is None:
            self._remember()
            self._batches = iter(self._loader())
        for delivery in self._batches:
            if delivery.batch is None:
                raise DataError(delivery.error)
            self._seen += 1
            self._places[delivery.slot] = delivery.place
            self._next_slot = (delivery.slot + 1) % self._stream.slots
            self._remember()
            yield delivery.batch

    def set_epoch(self, epoch: int) -> None:
        """Count batches anew for an epoch, if the trainer ends epochs by `limit_train_batches`."""
        if epoch != self._epoch:
            self._epoch, self._before_epoch = epoch, self._seen

    def state(self, done: int, limit: int | float) -> Place:
        """Where the readers of this process stood.

        Args:
            done: batches of the epoch that were trained on, as the trainer counts them.
            limit: how many batches the trainer takes from an epoch.

        Returns:
            What `resume` needs, in plain data.
        """
        seen = min(self._before_epoch + done, self._seen)
        places = next((entry for entry in self._history if entry[0] == seen), (0, self._next_slot, self._places))
        return {
            "epoch": self._epoch,
            "batches": done,
            "is_over": done >= limit,
            "next_slot": places[1],
            "places": list(places[2]),
        }

    def resume(self, states: Sequence[Place]) -> None:
        """Go on where a checkpoint stopped.

        Args:
            states: what `state` gave, one for each process of that run.
        """
        mine = states[self._stream.rank % len(states)]
        if len(states) == self._stream.world_size and len(mine["places"]) == self._stream.slots:
            self._places, self._next_slot = list(mine["places"]), mine["next_slot"]
        else:
            self._places = self._shared_out(states)
        self._stream.places, self._stream.first_slot = self._places, self._next_slot
        self._epoch = mine["epoch"] + int(mine["is_over"])
        self._before_epoch = 0 if mine["is_over"] else -mine["batches"]

    def reports(self) -> list[SourceReport]:
        """What the readers of this process have read and dropped."""
        total: list[SourceReport] = []
        for place in self._places:
            for number, values in enumerate(place.get("seen", [])):
                report = SourceReport.from_dict(values)
                if number < len(total):
                    total[number].add(report)
                else:
                    total.append(report)
        return total

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps the state of all processes, Lightning would keep that of the first."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing, see `state_dict`."""

    def _loader(self) -> DataLoader[Delivery]:
        return DataLoader(
            self._stream,
            batch_size=None,
            num_workers=self._stream.how.num_workers,
            pin_memory=False,
            # A generator of its own: iterating must not move the random numbers of the training.
            generator=torch.Generator(),
        )

    def _remember(self) -> None:
        self._history.append((self._seen, self._next_slot, list(self._places)))

    def _shared_out(self, states: Sequence[Place]) -> list[Place]:
        """Places for another number of readers: each skips its share of the rows that were read."""
        old = [place for state in states for place in state["places"] if place]
        readers = self._stream.world_size * self._stream.slots
        logger.warning(
            "The checkpoint's stream was read by %d readers (processes times workers), this run has %d. Training goes "
            "on at about the same row: near there some rows will come twice and others not at all.",
            sum(len(state["places"]) for state in states),
            readers,
        )
        if not old:
            return [{} for _ in range(self._stream.slots)]
        parts = []
        for number in range(len(self._stream.parts)):
            places = [place["parts"][number] for place in old]
            latest = max(place["round"] for place in places)
            taken = sum(place["taken"] for place in places if place["round"] == latest)
            parts.append({"round": latest, "skip": taken // readers})
        block = max(place["block"] for place in old)
        # What was counted stays with the first reader, so that sums are right.
        reports = [{"parts": parts, "block": block} for _ in range(self._stream.slots)]
        if self._stream.rank == 0:
            reports[0] = {**reports[0], **_summed(old)}
        return reports


def _summed(places: Sequence[Place]) -> Place:
    """The reports of all readers in one."""
    total = [SourceReport.from_dict(values) for values in places[0]["reports"]]
    for place in places[1:]:
        for report, values in zip(total, place["reports"], strict=True):
            report.add(SourceReport.from_dict(values))
    return {"reports": [report.to_dict() for report in total]}
