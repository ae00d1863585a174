"""Baselines that train the receiver itself."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info

from c2c_lightning.data.encode import Encoder
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.config_checks import check_fields
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.load_lm import load_tokenizer
from c2c_lightning.training.baselines.baseline import Baseline
from c2c_lightning.training.baselines.fuser_size import fuser_parameters
from c2c_lightning.training.baselines.receiver_encoder import Reads, ReceiverEncoder
from c2c_lightning.training.baselines.tuned_receiver import TunedReceiver
from c2c_lightning.training.build_model import FindLayers
from c2c_lightning.training.sharding import mesh_of
from c2c_lightning.training.train_model import TrainModel


@dataclass(frozen=True)
class ReceiverBaseline(Baseline):
    """A receiver that is trained without a sharer, on the rows that a fuser would be trained on.

    Attributes:
        reads: the receiver's conversation (`question`), or the sharers', private text included (`document`): the
            ceiling of a trained receiver.
    """

    reads: Reads = "question"
    output_name: ClassVar[str] = "receiver"
    trains_receiver: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse values of another type."""
        check_fields(self)

    def encoder(self, receiver: LMSpec, sharers: Sequence[LMSpec], fuser: FuserConfig) -> Encoder:
        """Encodes the receiver's prompts alone, as in its evaluation."""
        return ReceiverEncoder(tokenizer_spec(receiver, load_tokenizer(receiver)), self.reads)

    def model(
        self,
        receiver: LMSpec,
        sharers: Sequence[LMSpec],
        fuser: FuserConfig,
        strategy: Strategy | None,
        shard_models: bool = False,
        compile_choice: bool | str = False,
        find_layers: FindLayers | None = None,
    ) -> TrainModel:
        """The receiver with its trained parameters; the sharers are not loaded."""
        if shard_models or compile_choice or (strategy is not None and mesh_of(strategy) is not None):
            raise ConfigurationError(
                f"{type(self).__name__} trains the receiver, which is neither sharded nor compiled here: remove "
                "`shard_models` and `compile_fuser`, and train in one process or with `trainer.strategy: ddp`."
            )
        device = torch.device("cpu") if strategy is None else strategy.root_device
        budget = fuser_parameters(receiver, sharers, fuser)
        model = TunedReceiver(self.tuned(receiver, str(device), budget))
        size = "unknown" if budget is None else f"{budget:,}"
        rank_zero_info(f"{type(self).__name__}: {model.num_trained:,} trained parameters (the fuser: {size})")
        return model

    @abstractmethod
    def tuned(self, spec: LMSpec, device: str, budget: int | None) -> FrozenLM:
        """The loaded receiver, whose trained parameters have `requires_grad`.

        Args:
            spec: the receiver.
            device: where it is loaded.
            budget: number of trained parameters of the configured fuser, if it is known before models are loaded.
        """

    def description(self, model: TrainModel) -> dict[str, Any]:
        """What a checkpoint says about its weights: they are no fuser's."""
        return {"baseline": type(self).__name__, "receiver": model.receiver.spec.path}


def require_budget(budget: int | None, owner: str, argument: str) -> int:
    """The size of the fuser.

    Raises:
        ConfigurationError: it is not known; names the argument that replaces it.
    """
    if budget is None:
        raise ConfigurationError(
            f"{owner}: the fuser's number of parameters is not known before its models are loaded. Set `{argument}`."
        )
    return budget
