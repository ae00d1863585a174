"""What a training trains, as one object: the defaults are C2C itself, baselines replace a part of it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch.strategies import Strategy

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.build_model import FindLayers, build_encoder, build_model, describe
from c2c_lightning.training.train_model import TrainModel


class Baseline:
    """The training of a fuser on the right caches. Subclasses are baselines: dataclasses of plain values.

    No dataclass itself, since jsonargparse takes no subclasses of one.

    Attributes:
        output_name: folder, in the run folder, of the weights that `ExportFuser` writes.
        trains_receiver: whether the receiver itself is trained, so that none of its caches can be kept.
    """

    output_name: ClassVar[str] = "fuser"
    trains_receiver: ClassVar[bool] = False

    def encoder(self, receiver: LMSpec, sharers: Sequence[LMSpec], fuser: FuserConfig) -> Encoder:
        """Encodes the rows."""
        return build_encoder(receiver, sharers, fuser)

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
        """The model that is trained; arguments as in `build_model`."""
        return build_model(receiver, sharers, fuser, strategy, shard_models, compile_choice, find_layers)

    def training_batch(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch that is trained on, from a batch of the data."""
        return batch

    def description(self, model: TrainModel) -> dict[str, Any]:
        """What a checkpoint says about its weights."""
        return describe(model).to_json()

    @property
    def settings(self) -> dict[str, Any]:
        """The baseline as plain values, for checkpoints and model cards; empty for the training of a fuser."""
        return {"class": type(self).__name__, **vars(self)} if type(self) is not Baseline else {}
