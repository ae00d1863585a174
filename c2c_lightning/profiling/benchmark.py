"""The interface of benchmarks, and the models and device they run on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.model_pair import Pair

Result = dict[str, Any]
"""Numbers by name, in units that the names or the benchmark's documentation say; plain values only."""


def _no_progress(total: int) -> Callable[[], None]:
    return lambda: None


@dataclass(frozen=True)
class BenchContext:
    """Where benchmarks run.

    Attributes:
        pair: which models.
        device: where they compute.
        output_dir: where pictures go.
        progress: given a number of rounds, what to call after each.
    """

    pair: Pair
    device: torch.device
    output_dir: Path
    progress: Callable[[int], Callable[[], None]] = _no_progress

    def build(self) -> C2CModel:
        """A fresh fused model of the pair, in evaluation mode."""
        return self.pair.build(str(self.device)).eval()


@runtime_checkable
class Benchmark(Protocol):
    """Something that is measured.

    Attributes:
        name: its key in the results.
    """

    name: str

    def run(self, bench: BenchContext) -> Result:
        """Measure it."""
        ...


def smallest_vocabulary(model: C2CModel) -> int:
    """Vocabulary size that all models of a pair share."""
    configs = [lm.model.config.get_text_config() for lm in (model.receiver, *model.sharers)]
    return min(int(config.vocab_size) for config in configs)
