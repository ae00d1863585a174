"""Training a fuser with Lightning."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.errors import NonFiniteError
from c2c_lightning.export.description import FuserDescription, parse_config
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.load_lm import load_frozen, load_tokenizer
from c2c_lightning.model.pretrained import reference
from c2c_lightning.training.callbacks.gate_monitor import GateMonitor
from c2c_lightning.training.callbacks.non_finite_guard import NonFiniteGuard
from c2c_lightning.training.callbacks.random_state import RandomState
from c2c_lightning.training.callbacks.stop_on_signal import StopOnSignal
from c2c_lightning.training.callbacks.temperature import AnnealTemperature
from c2c_lightning.training.callbacks.throughput import Throughput
from c2c_lightning.training.checkpoint_io import refuse_pickles
from c2c_lightning.training.compile_fuser import compile_fuser
from c2c_lightning.training.finite_values import non_finite_in_checkpoint
from c2c_lightning.training.lightning_internals import callbacks_of
from c2c_lightning.training.optim import ParameterGroups, Schedule
from c2c_lightning.training.resume import ResumeCheck, check_checkpoint
from c2c_lightning.training.run_folder import RunFolder
from c2c_lightning.training.sharding import check_shardable, mesh_of, shard, shard_frozen
from c2c_lightning.training.token_count import TokenCount
from c2c_lightning.training.train_model import TrainModel
from c2c_lightning.training.validation import ValidationLosses

logger = logging.getLogger(__name__)


class C2CModule(LightningModule):
    """Trains the fuser between a frozen receiver and frozen sharers.

    The loss is the cross-entropy of the response, averaged over all supervised tokens of the optimizer step: over
    accumulated batches and over all processes, however unequal.

    Attributes:
        model: the fused model, from `configure_model` on.
    """

    model: TrainModel

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
    ) -> None:
        """Take names and choices; models are loaded when training begins.

        Args:
            receiver: the model that answers.
            sharers: the models that share their caches.
            fuser: the fuser's choices; defaults are the released code's.
            optimizer: makes the optimizer, given parameter groups.
            schedule: learning rate over the run.
            parameter_groups: rate of the gates, and what weight decay reaches.
            loss_average: over all supervised tokens of the optimizer step (or of the validation rows), or the mean of
                the batches' means, which weighs tokens of short batches more (as released).
            compile_fuser: compile the fuser with inductor, or with another backend of `torch.compile` by its name.
            activation_checkpointing: compute the receiver's response pass again on the way back instead of keeping it:
                less memory, more time.
            non_finite: stop at a loss or gradient that is NaN or infinite, or skip its optimizer step and count it; to
                skip, every step waits for the device.
            shard_models: with `FSDP2Strategy`, shard the frozen models too, block by block.
        """
        super().__init__()
        self.receiver_spec, self.sharer_specs, self.fuser_config = receiver, list(sharers), fuser
        self.optimizer_factory, self.schedule, self.parameter_groups = optimizer, schedule, parameter_groups
        self.loss_average, self.compile_fuser = loss_average, compile_fuser
        self.activation_checkpointing, self.shard_models = activation_checkpointing, shard_models
        # Plain values only, so that checkpoints load with `weights_only`; factories are left out.
        self.save_hyperparameters(
            {
                "receiver": asdict(self.receiver_spec),
                "sharers": [asdict(spec) for spec in self.sharer_specs],
                "fuser": asdict(self.fuser_config),
            }
        )
        self.non_finite = non_finite
        self.is_fresh = True
        self._encoder: Encoder | None = None
        self._step_tokens = TokenCount()
        self.validation_losses = ValidationLosses(per_token=loss_average == "tokens")

    def setup(self, stage: str) -> None:
        """A run begins; another one may have other validation data, and have ended in the middle of a step."""
        self.validation_losses.forget()
        self._step_tokens = TokenCount()

    def configure_model(self) -> None:
        """Load the frozen models and make a fresh fuser; runs again before validation and does nothing then."""
        if hasattr(self, "model"):
            return
        receiver, sharers = self._load_models()
        self.model = TrainModel(receiver, sharers, self.fuser_config)
        if self.fuser_config.gate_noise == "none":
            _freeze_gates(self.model.fuser)
        self.model.activation_checkpointing = self.activation_checkpointing
        if self.compile_fuser:
            compile_fuser(self.model.fuser, "inductor" if self.compile_fuser is True else self.compile_fuser)
        if self._mesh is not None:
            shard(self.model.to(self.trainer.strategy.root_device), self._mesh)
        # Gate temperatures are set alike in all processes; DDP would send them around in every step.
        buffers = [name for name, _ in self.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, buffers)

    def _load_models(self) -> tuple[FrozenLM, list[FrozenLM]]:
        """The receiver and the sharers on the device of this process; all of them, or this process's pieces."""
        if self.shard_models:
            check_shardable(self.fuser_config, is_sharded=self._mesh is not None)
        device = self.trainer.strategy.root_device if self._trainer is not None else torch.device("cpu")
        # What is sharded need not fit on the device as a whole.
        place = "cpu" if self.shard_models else str(device)
        receiver = load_frozen(self.receiver_spec, place)
        sharers = [load_frozen(spec, place, receiver.tokenizer) for spec in self.sharer_specs]
        if self.shard_models and self._mesh is not None:
            for lm in (receiver, *sharers):
                shard_frozen(lm, self._mesh, device)
        return receiver, sharers

    @property
    def _mesh(self) -> DeviceMesh | None:
        """The processes that share the fuser's weights; None where each has all of them."""
        return None if self._trainer is None else mesh_of(self.trainer.strategy)

    def configure_callbacks(self) -> Sequence[Callback]:
        """What belongs to C2C training whoever runs it."""
        added = [
            RunFolder(),
            ResumeCheck(),
            NonFiniteGuard(self.non_finite),
            AnnealTemperature(),
            RandomState(),
            GateMonitor(),
            Throughput(),
            StopOnSignal(),
        ]
        configured = {type(callback) for callback in callbacks_of(self.trainer)}
        return [callback for callback in added if type(callback) not in configured]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """The module as it was when a checkpoint was written.

        Args:
            checkpoint_path: a local file.
            args: see Lightning.
            kwargs: see Lightning; arguments of the module win over those of the checkpoint.
        """
        refuse_pickles(kwargs.get("weights_only"))
        # Mapped, so that weights are not read twice.
        saved = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)["hyper_parameters"]
        loaded: Self = super().load_from_checkpoint(checkpoint_path, *args, **{**choices_of(saved), **kwargs})
        return loaded

    @property
    def encoder(self) -> Encoder:
        """Encodes conversations for these models; needs their tokenizers only."""
        if self._encoder is None:
            receiver = tokenizer_spec(self.receiver_spec, load_tokenizer(self.receiver_spec))
            sharers = [tokenizer_spec(spec, load_tokenizer(spec)) for spec in self.sharer_specs]
            self._encoder = Encoder(receiver, sharers, self.fuser_config.token_alignment)
        return self._encoder

    @property
    def context_lengths(self) -> tuple[int | None, ...]:
        """Positions of the receiver and of each sharer, None where there is no limit."""
        return tuple(lm.max_tokens for lm in (self.model.receiver, *self.model.sharers))

    def describe(self) -> FuserDescription:
        """What a fuser directory says of this fuser."""
        sharers = tuple(reference(sharer) for sharer in self.model.sharers)
        return FuserDescription(self.model.fuser.config, reference(self.model.receiver), sharers)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over the fuser alone, and its schedule, stepped with it."""
        optimizer = self.parameter_groups.build(self.model.fuser, self.optimizer_factory)
        scheduler = self.schedule.build(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Summed loss; `on_before_optimizer_step` makes it the mean over all tokens of the step."""
        loss, tokens = self.model.batch_loss(batch), batch.response_mask.sum()
        # A batch may have none: it keeps this process in step with others in an epoch's last step.
        at_least_one = tokens.clamp(min=1)
        self.log("train/loss", loss.detach() / at_least_one, prog_bar=True, batch_size=len(batch))
        if self.loss_average == "batches":
            return loss / at_least_one
        self._step_tokens.add(tokens, self.trainer.world_size)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the tokens they were summed over, before they are clipped.

        Lightning has divided each batch's loss by the number of accumulated batches and DDP the gradients by the number
        of processes; both are undone here, so a short last window and unequal ranks count token by token.
        """
        if self.loss_average == "batches":
            return
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size / self._step_tokens.take()
        for parameter in self.model.fuser.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, and a fused optimizer's gradients in bf16-mixed too.

        Lightning refuses fused optimizers in every mixed precision, because they undo the scale of the loss themselves,
        after clipping. Only float16 has such a scale.
        """
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            super(MixedPrecision, plugin).clip_gradients(optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Losses with fusion, with another row's cache, and of the receiver alone, on the same tokens."""
        self.validation_losses.update(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the losses."""
        self.log_dict(self.validation_losses.compute(self.trainer.sanity_checking), prog_bar=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_checkpoint(checkpoint, self)
        self.is_fresh = False

    def on_train_start(self) -> None:
        """From here on the fuser is trained."""
        self.is_fresh = False

    def on_validation_start(self) -> None:
        """Warn that an untrained fuser is validated."""
        if self.is_fresh and self.trainer.state.fn == TrainerFn.VALIDATING:
            rank_zero_warn(
                "No checkpoint was loaded: these are the losses of an untrained fuser. Name one with `--ckpt_path`."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `lightning export` needs, so that it loads no language model."""
        if broken := non_finite_in_checkpoint(checkpoint):
            raise NonFiniteError(
                f"After optimizer step {self.global_step} {broken[0]} and {len(broken) - 1} more tensors hold NaN or "
                "infinity. No checkpoint was written; earlier ones are unchanged."
            )
        checkpoint["c2c"] = self.describe().to_json()


def _freeze_gates(fuser: Fuser) -> None:
    """Hard gates get no gradient; a zero in its place would let weight decay move them."""
    for _, _, *gates in fuser.gates():
        for gate in gates:
            gate.requires_grad_(False)


def choices_of(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `C2CModule` from a checkpoint's hyperparameters, which are plain values."""
    return {
        "receiver": LMSpec(**saved["receiver"]),
        "sharers": [LMSpec(**spec) for spec in saved["sharers"]],
        "fuser": parse_config(saved["fuser"]),
    }
