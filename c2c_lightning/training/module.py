"""Training a fuser with Lightning."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal, Self

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from c2c_lightning.alignment.layer_alignment import LayerMap
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.baselines import Baseline, baseline_of
from c2c_lightning.training.build_model import arguments_of
from c2c_lightning.training.callbacks.keep_prefills import KeepPrefills, KeepSettings
from c2c_lightning.training.checkpoint_io import refuse_pickles
from c2c_lightning.training.finite_values import refuse_non_finite
from c2c_lightning.training.fuser_training import FuserTraining
from c2c_lightning.training.layer_search import check_layer_map, found_layer_map, saved_layer_map
from c2c_lightning.training.lightning_internals import exclude_from_ddp
from c2c_lightning.training.optim import ParameterGroups, Schedule
from c2c_lightning.training.train_model import TrainModel
from c2c_lightning.training.validation import ValidationLosses


class C2CModule(FuserTraining):
    """Trains the fuser between a frozen receiver and frozen sharers (paper, section 3.3).

    The loss is the cross-entropy of the response, averaged over all supervised tokens of the optimizer step: over
    accumulated batches and all processes.

    Example:
        >>> from lightning import Trainer
        >>> from c2c_lightning import C2CModule, FuserConfig, InstructionDataModule, LMSpec
        >>> from c2c_lightning.data.sources import Messages
        >>> module = C2CModule(
        ...     LMSpec("embedded:receiver"),
        ...     [LMSpec("embedded:sharer")],
        ...     FuserConfig(hidden_dim=8, intermediate_dim=8, token_alignment="span"),
        ... )
        >>> data = InstructionDataModule(Messages("embedded:facts/train_chat"), max_rows=32, batch_size=8)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(max_steps=2, logger=False, enable_checkpointing=False, **quiet)
        >>> trainer.fit(module, data)
        >>> module.model.chat([[{"role": "user", "content": "What is the food of Nepi?"}]], max_new_tokens=1)
        [...]

    Attributes:
        model: the fused model, from `configure_model` on.
        continued_checkpoint: the checkpoint that will be loaded, if it is known before: Lightning names it too late for
            the layer map of `layer_alignment: correlated` or `answer`, which is searched again without it.
    """

    model: TrainModel
    continued_checkpoint: str | None = None

    def __init__(
        self,
        receiver: LMSpec,
        sharers: list[LMSpec],
        fuser: FuserConfig = FuserConfig(),  # noqa: B008  (frozen)
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True),
        schedule: Schedule = Schedule(),  # noqa: B008  (frozen)
        parameter_groups: ParameterGroups = ParameterGroups(),  # noqa: B008  (frozen)
        loss_average: Literal["tokens", "batches"] = "tokens",
        compile_fuser: bool | str = False,
        activation_checkpointing: bool = False,
        shard_models: bool = False,
        non_finite: Literal["stop", "skip"] = "stop",
        baseline: Baseline | None = None,
        cache_frozen: Literal["memory", "disk"] | None = None,
        cache_frozen_limit_gb: float = 8.0,
        cache_frozen_dir: str | None = None,
    ) -> None:
        """Keep names and choices; models are loaded by `configure_model`.

        Args:
            receiver: the receiver.
            sharers: the sharers.
            fuser: choices of the fuser; the defaults are the released code's.
            optimizer: makes the optimizer from parameter groups.
            schedule: learning rate over the run.
            parameter_groups: learning rate of the gates, and weight decay of gates and norms.
            loss_average: the mean over all supervised tokens of the optimizer step (and of the validation rows), or the
                mean of the batches' means, which weighs tokens of short batches more (as released).
            compile_fuser: compile the fuser with inductor, or with another backend of `torch.compile` by name.
            activation_checkpointing: recompute the receiver's response pass in the backward pass: less memory, more
                time.
            shard_models: with `FSDP2Strategy`, shard the frozen models too, block by block.
            non_finite: stop at a loss or gradient that is NaN or infinite, or skip and count its optimizer step; with
                `skip`, every step waits for the device.
            baseline: what is trained instead of the fuser, or a fuser on mismatched caches; a class of
                `c2c_lightning.training.baselines`.
            cache_frozen: keep the caches that the frozen models compute for a row, in `memory` (of each process) or on
                `disk` (for all processes and later runs), and reuse them in later epochs and validations. Losses are
                those without it. Of a sharer only the layers and tokens that the fuser reads are kept. Without effect
                on a baseline that trains the receiver.
            cache_frozen_limit_gb: gigabytes that may be kept, in memory for each process; other rows are computed in
                every step.
            cache_frozen_dir: folder for `disk`; default one in the cache of `datasets`, by models and settings.
        """
        super().__init__()
        if not sharers:
            raise ConfigurationError(
                "`model.sharers` is empty. Name at least one sharer: `[{path: DIRECTORY_OR_HUB_ID}]`."
            )
        for name, value, choices in (
            ("loss_average", loss_average, ("tokens", "batches")),
            ("non_finite", non_finite, ("stop", "skip")),
        ):
            if value not in choices:
                raise ConfigurationError(f"`{name}` is {value!r}, but must be one of {', '.join(choices)}.")
        self.receiver_spec, self.sharer_specs, self.fuser_config = receiver, list(sharers), fuser
        self.optimizer_factory, self.schedule, self.parameter_groups = optimizer, schedule, parameter_groups
        self.loss_average, self.non_finite, self.compile_fuser = loss_average, non_finite, compile_fuser
        self.activation_checkpointing, self.shard_models = activation_checkpointing, shard_models
        self.baseline = baseline or Baseline()
        self._loaded: tuple[FrozenLM, ...] = ()
        self.keep_settings = KeepSettings(cache_frozen, cache_frozen_limit_gb, cache_frozen_dir)
        # Plain values only, so that checkpoints load with `weights_only`; factories are left out.
        specs = {"receiver": asdict(receiver), "sharers": [asdict(spec) for spec in sharers]}
        self.save_hyperparameters({**specs, "fuser": asdict(fuser), "baseline": self.baseline.settings})
        self.validation_losses = ValidationLosses(per_token=loss_average == "tokens")

    @property
    def output_name(self) -> str:
        """Name of the folder that `ExportFuser` writes."""
        return self.baseline.output_name

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes conversations for these models."""
        return self.baseline.encoder(self.receiver_spec, self.sharer_specs, self.fuser_config)

    @property
    def context_lengths(self) -> tuple[int | None, ...]:
        """Positions of the receiver and of each sharer, None where there is no limit."""
        return tuple(lm.max_tokens for lm in self._loaded or (self.model.receiver, *self.model.sharers))

    def configure_callbacks(self) -> Sequence[Callback]:
        """Callbacks of every training, unless the Trainer has its own."""
        callbacks = super().configure_callbacks()
        is_kept = self.keep_settings.where is not None and not self.baseline.trains_receiver
        return [*callbacks, KeepPrefills(self.keep_settings)] if is_kept else callbacks

    def configure_model(self) -> None:
        """Load the frozen models and make a fuser, once: Lightning calls this before a validation too."""
        if hasattr(self, "model"):
            return
        strategy = None if self._trainer is None else self.trainer.strategy
        find_layers = None if self._trainer is None else self._find_layers
        if self.fuser_config.searches_layers and (known := saved_layer_map(self.continued_checkpoint)):
            self._keep_layer_map(known)
        models = (self.receiver_spec, self.sharer_specs, self.fuser_config)
        self.model = self.baseline.model(*models, strategy, self.shard_models, self.compile_fuser, find_layers)
        self.model.activation_checkpointing = self.activation_checkpointing
        # Every process sets its gate temperatures itself.
        exclude_from_ddp(self, [name for name, _ in self.named_buffers()])

    def _find_layers(self, receiver: FrozenLM, sharers: Sequence[FrozenLM]) -> list[LayerMap]:
        """The layer map of `layer_alignment: correlated` or `answer`."""
        self._loaded = (receiver, *sharers)  # the data module asks for their context lengths
        found = found_layer_map(self.trainer, self.fuser_config.layer_alignment, receiver, sharers)
        self._keep_layer_map(found)
        return found

    def _keep_layer_map(self, layer_map: list[LayerMap]) -> None:
        """Make a found map part of the configuration, so that checkpoints and fusers need no search."""
        self.fuser_config = replace(self.fuser_config, layer_map=layer_map)
        self.hparams["fuser"] = asdict(self.fuser_config)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """The summed loss of a batch, which `TokenAverage` divides by the tokens of the step; or its mean."""
        loss = self.model.batch_loss(self.baseline.training_batch(batch))
        # A batch may have no tokens: it keeps this process in step with others at the end of an epoch.
        tokens = batch.response_mask.sum().clamp(min=1)
        self.log("train/loss", loss.detach() / tokens, prog_bar=True, batch_size=len(batch))
        return loss if self.loss_average == "tokens" else loss / tokens

    def setup(self, stage: str) -> None:
        """Forget the validation data of an earlier run."""
        self.validation_losses.forget()

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Losses with fusion, with another row's cache, and of the receiver alone, on the same tokens."""
        self.validation_losses.update(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the losses."""
        self.log_dict(self.validation_losses.compute(self.trainer.sanity_checking), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse non-finite weights; add the description that `lightning export` needs."""
        refuse_non_finite(checkpoint, self.global_step)
        checkpoint["c2c"] = self.baseline.description(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        super().on_load_checkpoint(checkpoint)
        check_layer_map(checkpoint, self.fuser_config)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """The module of a local checkpoint file; arguments in `kwargs` override those of the checkpoint."""
        refuse_pickles(kwargs.get("weights_only"))
        saved = arguments_of(checkpoint_path)
        arguments = {**saved, "baseline": baseline_of(saved["baseline"]), **kwargs}
        loaded: Self = super().load_from_checkpoint(checkpoint_path, *args, **arguments)
        return loaded
