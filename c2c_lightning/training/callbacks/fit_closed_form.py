"""Computes closed-form fusers at the start of `lightning fit`."""

import logging
from collections.abc import Iterator

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.closed_form import closed_form_tokens, fit_closed_form
from c2c_lightning.training._utils import model_of

logger = logging.getLogger(__name__)


class FitClosedForm(Callback):
    """Fits the kinds that have a closed form on the first training batches; ends the run if nothing else is trained."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, unless the weights come from a checkpoint.

        Raises:
            ConfigurationError: several processes, which would fit different weights.
        """
        model = model_of(pl_module)
        wanted = closed_form_tokens(model.fuser)
        if not wanted:
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                "a closed-form fuser is fitted by one process. Set `trainer.devices: 1`, and continue from its "
                "checkpoint with more."
            )
        if model.is_untrained:
            with Progress(console=ERROR_CONSOLE, disable=trainer.progress_bar_callback is None) as progress:
                task = progress.add_task("Tokens of paired caches", total=wanted)
                count = fit_closed_form(model, _prompts(trainer), lambda new: progress.advance(task, new))
            model.is_untrained = False
            logger.info("closed form fitted on %d tokens", count)
        if not any(parameter.requires_grad for parameter in model.fuser.parameters()):
            trainer.should_stop = True


def _prompts(trainer: Trainer) -> Iterator[PromptBatch]:
    # A loader of its own: the training's keeps its position.
    for batch in trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]
        yield batch.prompt
