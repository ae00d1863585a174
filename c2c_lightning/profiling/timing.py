"""Timing of pieces of work that are compared with each other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from torch.utils.benchmark import timer as wall_clock

Work = Callable[[], object]


@dataclass
class Times:
    """How long one work took in each round, in seconds.

    CPU time excludes waiting for other programs, and so varies less than wall time on a shared machine.
    It is meaningful where one thread computes and the device is a CPU.

    Attributes:
        wall: on the clock, with everything on a GPU finished.
        cpu: of this process.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median round."""
        return median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """The median round's CPU time."""
        return median(self.cpu)

    def measure(self, work: Work) -> None:
        """Time one more round."""
        cpu, wall = time.process_time(), wall_clock()
        work()
        # The wall clock first: torch's benchmark timer waits for the GPU.
        wall = wall_clock() - wall
        self.add(wall, time.process_time() - cpu)

    def add(self, wall: float, cpu: float) -> None:
        """Add a round, in seconds."""
        self.wall.append(wall)
        self.cpu.append(cpu)

    def in_rounds(self, rounds: int) -> "Times":
        """Sums of what was measured within each of `rounds` rounds of equal length."""
        size = len(self.wall) // rounds
        return Times(*([sum(all_[n * size : (n + 1) * size]) for n in range(rounds)] for all_ in (self.wall, self.cpu)))

    def to_dict(self) -> dict[str, Any]:
        """Medians and the range, in seconds."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "fastest": min(self.wall),
            "slowest": max(self.wall),
            "rounds": len(self.wall),
        }


def interleaved(works: Mapping[str, Work], rounds: int, after_round: Work | None = None) -> dict[str, Times]:
    """Time works alternately, so that other load on the machine affects all of them alike.

    Each runs once before, unmeasured; `after_round` is called after each round.
    """
    times = {name: Times() for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].measure(work)
        if after_round is not None:
            after_round()
    return times


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the rounds' ratios; neighbours in time are compared, so a machine that slows down matters less."""
    return median(a / b for a, b in zip(over, under, strict=True))
