"""The model that a hub's training trains: frozen language models, each loaded once, and the hub between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.export.hub_description import HubDescription
from c2c_lightning.export.hub_directory import save_hub
from c2c_lightning.fuser.direction import Direction
from c2c_lightning.fuser.hub_fuser import HubFuser
from c2c_lightning.fuser.parameter_roles import ParameterRoles
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.training.train_model import TrainModel


class BatchLoss(nn.Module):
    """The loss of one direction as a module, so that its fuser's tensors can be replaced for a call."""

    def __init__(self, model: TrainModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None) -> Tensor:
        """See `TrainModel.batch_loss`."""
        return self.model.batch_loss(batch, active_sharers)


class HubDirection:
    """One direction of a hub in training: the fused model of a pair, whose weights are rows of the hub's parts."""

    has_bare_receiver = True

    def __init__(self, direction: Direction, hub: HubFuser, models: Mapping[str, FrozenLM]) -> None:
        self.direction, self._hub = direction, hub
        pair = models[direction.receiver], [models[direction.sharer]]
        self.sharers = pair[1]
        self.loss = BatchLoss(TrainModel(*pair, hub.template(direction)))

    def batch_loss(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None = None) -> Tensor:
        """See `TrainModel.batch_loss`."""
        if self.loss.training != self._hub.training:
            # After a validation Lightning restores the mode of submodules one by one, and this is none.
            self.loss.train(self._hub.training)
        tensors = self._hub.pair_tensors(self.direction)
        named = {f"model.fuser.{name}": tensor for name, tensor in tensors.items()}
        loss: Tensor = functional_call(self.loss, named, (batch, active_sharers))
        return loss


class HubModel(nn.Module):
    """A hub and its language models.

    Attributes:
        fuser: the hub; it alone is a submodule.
        models: the language models by name.
        directions: the trained directions by name, without those of a hub that is joined.
        is_untrained: the hub was neither trained nor loaded from a checkpoint.
        training_record: how it was trained.
    """

    is_untrained = True
    has_bare_receiver = True
    training_record: TrainingRecord | None = None

    def __init__(
        self, models: Mapping[str, FrozenLM], fuser: HubFuser, description: HubDescription, trained: Sequence[Direction]
    ) -> None:
        super().__init__()
        self.fuser, self.models, self._description = fuser, dict(models), description
        self.directions = {str(direction): HubDirection(direction, fuser, models) for direction in trained}

    def batch_loss(self, batch: JointBatch) -> Tensor:
        """Summed cross-entropy of the supervised response tokens of all directions, ()."""
        losses = [self.directions[name].batch_loss(part) for name, part in batch.batches.items()]
        total = torch.stack([loss.to(losses[0].device) for loss in losses]).sum()
        return total + self._every_parameter() if torch.is_grad_enabled() else total

    def _every_parameter(self) -> Tensor:
        """Zero, with a gradient for every trained parameter: DDP waits for each, and a part may have unread layers."""
        firsts = [parameter.flatten()[0] for parameter in self.fuser.parameters() if parameter.requires_grad]
        return 0.0 * torch.stack(firsts).sum()

    def parameter_roles(self) -> ParameterRoles:
        """The trained parameters by their role for the optimizer."""
        return self.fuser.parameter_roles()

    @property
    def description(self) -> HubDescription:
        """The description of the hub."""
        return self._description

    def write(self, directory: Path, is_first_process: bool) -> None:
        """Write the directory of the hub from the first process."""
        if is_first_process:
            described = replace(self.description, training=self.training_record)
            save_hub(directory, self.fuser, described, overwrite=True)

    def prompt_texts(self, batch: JointBatch) -> list[str]:
        """The prompts as the receivers read them, by direction."""
        return [
            f"{name}: {text}"
            for name, part in batch.batches.items()
            for text in self.directions[name].loss.model.prompt_texts(part)
        ]
