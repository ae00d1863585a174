"""Training a hub with Lightning: fusers between many models, from one encoder and one decoder per model."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW

from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.export.from_checkpoint import HUB_KEY
from c2c_lightning.export.hub_directory import load_hub
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.hub_layout import hub_config
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.build_hub import HubPlan, joined_config
from c2c_lightning.training.build_model import build_encoder
from c2c_lightning.training.callbacks.fit_closed_form import FitClosedForm
from c2c_lightning.training.finite_values import refuse_non_finite
from c2c_lightning.training.fuser_training import FuserTraining
from c2c_lightning.training.hub_model import HubModel
from c2c_lightning.training.lightning_internals import exclude_from_ddp
from c2c_lightning.training.optim import ParameterGroups, Schedule
from c2c_lightning.training.sharding import mesh_of
from c2c_lightning.training.validation import ValidationLosses


class HubModule(FuserTraining):
    """Trains the fusers of several directions jointly (paper, appendix A.5.2).

    Every step has one batch of each direction; the loss is the cross-entropy of all their responses, averaged over all
    supervised tokens of the step.

    Attributes:
        model: the hub with its language models, from `configure_model` on.
        output_name: what `ExportFuser` writes.
    """

    model: HubModel
    output_name = "hub"
    loss_average: Literal["tokens"] = "tokens"

    def __init__(
        self,
        models: dict[str, LMSpec],
        directions: list[str] | None = None,
        fuser: FuserConfig = FuserConfig(kind="hub"),  # noqa: B008  (frozen)
        hub: str | None = None,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True),
        schedule: Schedule = Schedule(),  # noqa: B008  (frozen)
        parameter_groups: ParameterGroups = ParameterGroups(),  # noqa: B008  (frozen)
        activation_checkpointing: bool = False,
        non_finite: Literal["stop", "skip"] = "stop",
    ) -> None:
        """Keep names and choices; models are loaded by `configure_model`.

        Args:
            models: the models by name; with `hub`, the new ones only.
            directions: the trained directions, SHARER_to_RECEIVER each; default all, with `hub` those from and to a
                new model.
            fuser: choices of the fusers, of kind `hub`.
            hub: directory of a hub that the models join; its parts are frozen.
            optimizer: makes the optimizer from parameter groups.
            schedule: learning rate over the run.
            parameter_groups: learning rate of the gates, and weight decay of gates and norms.
            activation_checkpointing: recompute the receivers' response passes in the backward pass: less memory, more
                time.
            non_finite: stop at a loss or gradient that is NaN or infinite, or skip and count its optimizer step.
        """
        super().__init__()
        joined = None if hub is None else load_hub(hub)
        self.fuser_config = joined_config(fuser, joined)
        hub_config(self.fuser_config)
        self.plan = HubPlan.of(models, directions, joined)
        self.optimizer_factory, self.schedule, self.parameter_groups = optimizer, schedule, parameter_groups
        self.activation_checkpointing, self.non_finite = activation_checkpointing, non_finite
        # Plain values only, so that checkpoints load with `weights_only`; factories are left out.
        specs = {name: asdict(spec) for name, spec in models.items()}
        self.save_hyperparameters(
            {"models": specs, "directions": directions, "fuser": asdict(self.fuser_config), "hub": hub}
        )
        losses = {str(direction): ValidationLosses(per_token=True) for direction in self.plan.directions}
        self.validation_losses = nn.ModuleDict(losses)

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """The encoder of conversations of each direction."""
        specs = self.plan.models
        return {
            str(d): build_encoder(specs[d.receiver], [specs[d.sharer]], self.fuser_config) for d in self.plan.directions
        }

    @property
    def sharers_by_direction(self) -> dict[str, str]:
        """For each direction the name of its sharer."""
        return {str(direction): direction.sharer for direction in self.plan.directions}

    @property
    def context_lengths_by_direction(self) -> dict[str, tuple[int | None, ...]]:
        """For each direction, positions of receiver and sharer, None where there is no limit."""
        models = self.model.models
        return {str(d): tuple(models[name].max_tokens for name in (d.receiver, d.sharer)) for d in self.plan.directions}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Callbacks of every training, unless the Trainer has its own; the kinds of a hub have no closed form."""
        return [callback for callback in super().configure_callbacks() if not isinstance(callback, FitClosedForm)]

    def configure_model(self) -> None:
        """Load every language model once and make the hub.

        Raises:
            ConfigurationError: a strategy that shards.
        """
        if hasattr(self, "model"):
            return
        strategy = None if self._trainer is None else self.trainer.strategy
        if strategy is not None and mesh_of(strategy) is not None:
            raise ConfigurationError("a hub cannot be sharded. Train it with `trainer.strategy: ddp`.")
        device = torch.device("cpu") if strategy is None else strategy.root_device
        self.model = self.plan.build(self.fuser_config, device)
        for direction in self.model.directions.values():
            direction.loss.model.activation_checkpointing = self.activation_checkpointing
        # Every process sets its gate temperatures itself.
        exclude_from_ddp(self, [name for name, _ in self.named_buffers()])

    def training_step(self, batch: JointBatch, batch_idx: int) -> Tensor:
        """The summed loss of all directions, which `TokenAverage` divides by the tokens of the step."""
        loss = self.model.batch_loss(batch)
        tokens = batch.num_supervised.clamp(min=1)
        self.log("train/loss", loss.detach() / tokens, prog_bar=True, batch_size=len(batch))
        return loss

    def setup(self, stage: str) -> None:
        """Forget the validation data of an earlier run."""
        for losses in self.validation_losses.values():
            losses.forget()  # type: ignore[operator]

    def validation_step(self, batch: JointBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Losses of a direction: with fusion, with another row's cache, and of the receiver alone."""
        for name, part in batch.batches.items():
            self.validation_losses[name].update(self.model.directions[name], part)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the losses of each direction, and their means over the directions."""
        is_trial, by_name = self.trainer.sanity_checking, dict[str, list[Tensor]]()
        for direction, losses in self.validation_losses.items():
            if not losses.has_data:
                continue
            for name, value in losses.compute(is_trial).items():  # type: ignore[operator]
                by_name.setdefault(name, []).append(value)
                self.log(f"{name}/{direction}", value)
        self.log_dict({name: torch.stack(values).mean() for name, values in by_name.items()}, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse non-finite weights; add the description that `lightning export` needs."""
        refuse_non_finite(checkpoint, self.global_step)
        checkpoint[HUB_KEY] = self.model.description.to_json()

    def export(self, directory: str | Path) -> None:
        """Write the directory of the hub."""
        self.model.write(Path(directory), is_first_process=True)
