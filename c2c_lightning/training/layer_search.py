"""A layer map that is found on the first training rows (`correlated`, `answer`), or read from a checkpoint."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.progress import Progress

from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerAlignment, LayerMap
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import CheckpointError, ConfigurationError
from c2c_lightning.export.from_checkpoint import damage_of
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.answer_probe import probe_answers
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.layer_probe import PROBE_TOKENS, probe_layers
from c2c_lightning.training.build_model import arguments_of

logger = logging.getLogger(__name__)


def saved_layer_map(path: str | None) -> list[LayerMap] | None:
    """The layer map of a checkpoint; None without one, or for one that is refused when it is loaded."""
    if path is None or not Path(path).is_file() or damage_of(Path(path)):
        return None
    saved: FuserConfig = arguments_of(path)["fuser"]
    return saved.layer_map


def check_layer_map(checkpoint: Mapping[str, Any], config: FuserConfig) -> None:
    """Refuse a checkpoint whose layer map is not the one that was found.

    Raises:
        CheckpointError: names the map of the checkpoint.
    """
    saved = checkpoint.get("hyper_parameters", {}).get("fuser")
    if not isinstance(saved, Mapping) or config.layer_alignment in ALIGNMENTS:
        return
    if saved.get("layer_map") != config.layer_map:
        raise CheckpointError(
            f"`layer_alignment: {config.layer_alignment}` found other layers than the checkpoint has. Set `layer_map` "
            f"to its own, {saved.get('layer_map')}."
        )


def found_layer_map(
    trainer: Trainer, alignment: LayerAlignment, receiver: FrozenLM, sharers: Sequence[FrozenLM]
) -> list[LayerMap]:
    """The layer map that the first training batches give; that of the first process in all of them.

    Raises:
        ConfigurationError: no data to compare layers on, or sharded models.
    """
    data = getattr(trainer, "datamodule", None)
    if data is None or trainer.state.fn != TrainerFn.FITTING:
        raise ConfigurationError(
            f"`layer_alignment: {alignment}` compares layers on the rows of a data module at the start of `fit`. Name "
            "a checkpoint whose map is known, give `layer_map`, or use another alignment."
        )
    if any(lm.is_sharded for lm in (receiver, *sharers)):
        raise ConfigurationError(
            f"`layer_alignment: {alignment}` needs whole language models: remove `shard_models`, or give `layer_map`."
        )
    with Progress(console=ERROR_CONSOLE, disable=trainer.progress_bar_callback is None) as progress:
        task = progress.add_task("Layers compared on tokens", total=PROBE_TOKENS)
        # A loader of its own: the training's begins with the first batch.
        batches: Iterable[TrainingBatch] = data.train_dataloader()
        advance = partial(progress.advance, task)
        if alignment == "answer":
            found = probe_answers(receiver, sharers, batches, done=advance)
        else:
            found = probe_layers(receiver, sharers, (batch.prompt for batch in batches), done=advance)
    for number, sharer in enumerate(found):
        best = sharer.scores.max(1).values
        logger.info("sharer %d: layer map %s (R^2 %.2f to %.2f)", number, sharer.layer_map, best.min(), best.max())
        if alignment == "answer":
            scores = ", ".join(f"{score:.2f}" for score in sharer.scores[0].tolist())
            logger.info("sharer %d: R^2 by sharer layer %s", number, scores)
    maps: list[LayerMap] = trainer.strategy.broadcast([sharer.layer_map for sharer in found])
    return maps
