"""Computes closed-form parts of fusers at the start of `lightning fit`."""

import logging
from collections.abc import Iterator

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress
from torch.distributed.tensor import DTensor

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.closed_form import closed_form_tokens, fit_closed_form
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.decode_cache import with_response
from c2c_lightning.training._utils import model_of

logger = logging.getLogger(__name__)


class FitClosedForm(Callback):
    """Fits the kinds that have a closed form on the first training batches; ends the run if nothing else is trained."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, unless the weights come from a checkpoint; with several processes, the fit of the first is that of all.

        Raises:
            ConfigurationError: a fuser that is sharded over processes.
        """
        model = model_of(pl_module)
        wanted = closed_form_tokens(model.fuser)
        if not wanted:
            return
        if any(isinstance(parameter, DTensor) for parameter in model.fuser.parameters()):
            raise ConfigurationError(
                "a closed form cannot be fitted for a sharded fuser. Set `trainer.strategy: ddp`, or train a step in "
                "one process and continue from its checkpoint."
            )
        if model.is_untrained:
            with Progress(console=ERROR_CONSOLE, disable=trainer.progress_bar_callback is None) as progress:
                task = progress.add_task("Tokens of paired caches", total=wanted)
                texts = _fused_texts(trainer, model)
                count = fit_closed_form(model, texts, lambda new: progress.advance(task, new))
            if trainer.world_size > 1:
                # On the CPU: what is sent from a GPU arrives on the same GPU.
                weights = {name: tensor.cpu() for name, tensor in model.fuser.state_dict().items()}
                model.fuser.load_state_dict(trainer.strategy.broadcast(weights))
            model.is_untrained = False
            logger.info("closed form fitted on %d tokens", count)
        if not any(parameter.requires_grad for parameter in model.fuser.parameters()):
            trainer.should_stop = True


def _fused_texts(trainer: Trainer, model: C2CCore) -> Iterator[PromptBatch]:
    """The prompts of the training rows, with their responses where these are fused too."""
    # A loader of its own: the training's keeps its position.
    for batch in trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]
        if model.mode.fuses_response:
            yield with_response(model.receiver, model.sharers, batch.prompt, batch.response_inputs)
        else:
            yield batch.prompt
