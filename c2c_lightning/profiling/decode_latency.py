"""Decoding on a fused cache, against the receiver's own `generate`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import timer as wall_clock
from transformers.generation.streamers import BaseStreamer

from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.timing import Times, median_ratio
from c2c_lightning.profiling.workload import equal_batch


class TokenClock(BaseStreamer):
    """Records the time of each token of `generate`."""

    def __init__(self) -> None:
        """Start without tokens."""
        self.times: list[tuple[float, float]] = []

    def put(self, value: Tensor) -> None:
        """The prompt, then each new token."""
        wall = wall_clock()
        self.times.append((wall, time.process_time()))

    def end(self) -> None:
        """Do nothing; required by `BaseStreamer`."""

    def per_token(self) -> tuple[float, float]:
        """Median wall and CPU seconds from one new token to the next; the first waits for a prefill and is left out."""
        new = self.times[1:]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(new)]
        return median(wall for wall, _ in steps), median(cpu for _, cpu in steps)


@dataclass(frozen=True)
class DecodeLatency:
    """Seconds from one new token to the next.

    Attributes:
        prompt_tokens: length of each prompt, in tokens.
        new_tokens: length of each answer, in tokens.
        batch_size: prompts.
        rounds: how often both are timed.
    """

    prompt_tokens: int = 256
    new_tokens: int = 64
    batch_size: int = 1
    rounds: int = 7
    name: str = "decode"

    @torch.no_grad()
    def run(self, bench: BenchContext) -> Result:
        """Time both alternately."""
        model = bench.build()
        batch = equal_batch(self.batch_size, self.prompt_tokens, 1, smallest_vocabulary(model), len(model.sharers))
        prompt, done = batch.prompt.to(bench.device), bench.progress(self.rounds)
        kwargs: dict[str, Any] = {"max_new_tokens": self.new_tokens, "min_new_tokens": self.new_tokens}
        kwargs |= {"do_sample": False, "pad_token_id": 0}
        ids, own = prompt.receiver.input_ids, {"attention_mask": prompt.receiver.mask, **kwargs}
        writers: dict[str, Callable[[TokenClock], Any]] = {
            "c2c": lambda clock: model.generate(prompt, streamer=clock, **kwargs),
            "receiver": lambda clock: model.receiver.model.generate(ids, streamer=clock, **own),
        }
        times = {name: Times() for name in writers}
        for _ in range(self.rounds):
            for name, write in writers.items():
                clock = TokenClock()
                write(clock)
                times[name].add(*clock.per_token())
            done()
        fused, receiver = times["c2c"], times["receiver"]
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "batch_size": self.batch_size,
            "seconds_per_token": {name: timed.seconds for name, timed in times.items()},
            "ratio": median_ratio(fused.wall, receiver.wall),
            "ratio_by_cpu_time": median_ratio(fused.cpu, receiver.cpu),
            "rounds": self.rounds,
        }
