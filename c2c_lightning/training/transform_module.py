"""Training the maps of the transformation oracle with Lightning."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW, Optimizer

from c2c_lightning.alignment.layer_alignment import LayerAlignment
from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.analysis.transform.entry_map import EntryMapConfig
from c2c_lightning.analysis.transform.model_pair import PARTS, ModelPair, aligned_layers
from c2c_lightning.analysis.transform.transform_model import LayerTransform, TransformModel
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.training.build_model import build_encoder
from c2c_lightning.training.callbacks.log_interval import LogInterval
from c2c_lightning.training.callbacks.non_finite_guard import NonFiniteGuard
from c2c_lightning.training.callbacks.random_state import RandomState
from c2c_lightning.training.callbacks.stop_on_signal import StopOnSignal
from c2c_lightning.training.callbacks.validation_line import ValidationLine
from c2c_lightning.training.finite_values import refuse_non_finite
from c2c_lightning.training.lightning_internals import callbacks_of, clip_gradients, exclude_from_ddp
from c2c_lightning.training.optim import Schedule
from c2c_lightning.training.resume import ResumeCheck, check_checkpoint
from c2c_lightning.training.run_folder import RunFolder

SCALE_TOKENS = 2048
"""Aligned tokens of the training data by which inputs and targets are standardised."""


class TransformModule(LightningModule):
    """Trains maps from a frozen sharer's cache to a frozen receiver's (paper, section 3.2.2 and A.3.2).

    The maps of all pairs of layers, and of keys, keys without position and values, are separate networks; the loss is
    the mean of their squared errors, each in units of its target's variance.

    Attributes:
        model: models and maps, from `configure_model` on.
    """

    model: TransformModel

    def __init__(
        self,
        receiver: LMSpec,
        sharer: LMSpec,
        maps: EntryMapConfig = EntryMapConfig(),  # noqa: B008  (frozen)
        layers: Literal["aligned", "last"] = "aligned",
        layer_alignment: LayerAlignment = "skip",
        token_alignment: TokenAlignment = "auto",
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=3e-4, weight_decay=0.01, fused=True),
        schedule: Schedule = Schedule(),  # noqa: B008  (frozen)
    ) -> None:
        """Keep names and choices; models are loaded by `configure_model`.

        Args:
            receiver: the model whose entries are the targets.
            sharer: the model whose entries are transformed.
            maps: sizes of the maps; the defaults are those of the released recipe.
            layers: every aligned pair of layers, or the last one alone (the paper).
            layer_alignment: which layers are aligned; each sharer layer may have one receiver layer.
            token_alignment: how tokens are aligned, as for a fuser.
            optimizer: makes the optimizer.
            schedule: learning rate over the run.
        """
        super().__init__()
        if layers not in ("aligned", "last"):
            raise ConfigurationError(f"`layers` is {layers!r}, but must be `aligned` or `last`.")
        self.receiver_spec, self.sharer_spec, self.map_config = receiver, sharer, maps
        self.layers, self.layer_alignment, self.token_alignment = layers, layer_alignment, token_alignment
        self.optimizer_factory, self.schedule = optimizer, schedule
        # Plain values only, so that checkpoints load with `weights_only`.
        plain = {"receiver": asdict(receiver), "sharer": asdict(sharer), "maps": asdict(maps)}
        self.save_hyperparameters({**plain, "layers": layers, "layer_alignment": layer_alignment})

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes conversations for these models."""
        config = FuserConfig(token_alignment=self.token_alignment)
        return build_encoder(self.receiver_spec, [self.sharer_spec], config)

    @property
    def context_lengths(self) -> tuple[int | None, ...]:
        """Positions of the receiver and of the sharer, None where there is no limit."""
        return self.model.pair.receiver.max_tokens, self.model.pair.sharer.max_tokens

    def configure_callbacks(self) -> Sequence[Callback]:
        """Callbacks of every training, unless the Trainer has its own."""
        present = {type(callback) for callback in callbacks_of(self.trainer)}
        defaults = [RunFolder(), ResumeCheck(), LogInterval(), NonFiniteGuard(), RandomState(), ValidationLine()]
        return [callback for callback in (*defaults, StopOnSignal()) if type(callback) not in present]

    def configure_model(self) -> None:
        """Load the frozen models and make fresh maps, once."""
        if hasattr(self, "model"):
            return
        device = None if self._trainer is None else str(self.trainer.strategy.root_device)
        if self.sharer_spec.url is not None:
            raise ConfigurationError("a sharer in another process cannot be transformed: name its `path` alone.")
        receiver = load_frozen(self.receiver_spec, device)
        sharer = load_frozen(self.sharer_spec, device, receiver.tokenizer)
        pairs = aligned_layers(receiver, sharer, self.layer_alignment, self.layers == "last")
        self.model = TransformModel(ModelPair(receiver, sharer, pairs), self.map_config)
        # Every process has the moments of its own rows.
        exclude_from_ddp(self, [name for name, _ in self.named_buffers()])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the MLPs, and its schedule, stepped with it."""
        optimizer = self.optimizer_factory(self.model.parameters())
        scheduler = self.schedule.build(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip, also for a fused optimizer in bf16-mixed precision."""
        clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0, gradient_clip_algorithm)

    def on_train_start(self) -> None:
        """Standardise by the first training rows, unless the scales come from a checkpoint."""
        if self.model.is_untrained:
            # A loader of its own: the training's keeps its position.
            self.model.measure_scales(_prompts(self.trainer.datamodule.train_dataloader()), SCALE_TOKENS)  # type: ignore[attr-defined]
            self._average(scale for layer in self._layers() for scale in layer.scales.buffers())
        self.model.is_untrained = False

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Mean squared error of all maps in units of the variance."""
        loss = self.model.loss(self.model.pair.entries(batch.prompt), add_moments=True)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """The same on held-out rows."""
        loss = self.model.loss(self.model.pair.entries(batch.prompt))
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def on_train_end(self) -> None:
        """Give every process the moments of all rows."""
        self.share_moments()

    def share_moments(self) -> None:
        """Replace each process's moments by their mean over processes; a common factor changes no map."""
        self._average(moment for layer in self._layers() for moment in layer.moments.buffers())

    def _layers(self) -> list[LayerTransform]:
        return [layer for part in PARTS for layer in self.model.layers(part)]

    def _average(self, tensors: Iterable[Tensor]) -> None:
        """The mean over processes, in place."""
        if self.trainer.world_size > 1:
            for tensor in tensors:
                tensor.copy_(self.trainer.strategy.reduce(tensor.clone(), reduce_op="mean"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the moments of all processes; refuse non-finite weights."""
        # In place: the checkpoint refers to the same memory.
        self.share_moments()
        refuse_non_finite(checkpoint, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_checkpoint(checkpoint, self)
        self.model.is_untrained = False


def _prompts(batches: Any) -> Iterator[PromptBatch]:
    for batch in batches:
        yield batch.prompt
