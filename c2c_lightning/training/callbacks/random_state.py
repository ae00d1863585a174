"""Random number generators in checkpoints: a resumed run draws the numbers of the uninterrupted one."""

import logging
import random
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import distributed

logger = logging.getLogger(__name__)


class RandomState(Callback):
    """Keeps the state of all random number generators of all processes; Lightning's checkpoints do not.

    Gate noise and dropout follow torch's generators.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The generators of every process; all processes call this together."""
        mine = _generators()
        if not distributed.is_available() or not distributed.is_initialized():
            return {"processes": [mine]}
        everyone: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(everyone, mine)
        return {"processes": everyone}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the generators until training begins."""
        self._loaded = state_dict["processes"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the generators; draws since the start of the process have no effect."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        if len(loaded) != trainer.world_size:
            logger.warning(
                "The checkpoint was written by %d processes, this run has %d: random numbers are not continued.",
                len(loaded),
                trainer.world_size,
            )
            return
        _set_generators(loaded[trainer.global_rank])


def _generators() -> dict[str, Any]:
    """The state of this process's generators, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), gauss],
        "python": [version, list(internal), gauss_next],
    }


def _set_generators(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
