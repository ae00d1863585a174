"""Starts a training from the weights of a fuser: a second stage on other rows."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.distributed.tensor import DTensor

from c2c_lightning.errors import ConfigurationError, PairMismatchError
from c2c_lightning.export.format import load_fuser
from c2c_lightning.export.pair_check import check_models
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.training._utils import model_of
from c2c_lightning.training.build_model import describe


class InitialFuser(Callback):
    """Loads a fuser's weights at the beginning of `lightning fit`; optimizer, schedule and data start at the beginning.

    A run that is continued from a checkpoint (`--ckpt_path`) keeps the weights of the checkpoint.

    Args:
        path: fuser directory, or a fuser on the hub.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the weights.

        Raises:
            FuserFormatError: no fuser there, or a damaged one.
            PairMismatchError: a fuser of other models, layers, kind or sizes.
            ConfigurationError: a sharded fuser.
        """
        model = model_of(pl_module)
        if not model.is_untrained:
            return
        saved, known = load_fuser(self.path), describe(model)
        check_models(saved.description, known.receiver, known.sharers)
        if any(isinstance(parameter, DTensor) for parameter in model.fuser.parameters()):
            raise ConfigurationError(
                "InitialFuser cannot fill a sharded fuser. Train without FSDP2, or continue from a checkpoint."
            )
        if _layout_of(saved.fuser) != _layout_of(model.fuser):
            raise PairMismatchError(
                f"the fuser at {self.path} has other layers, sizes or another kind than `model.fuser` asks for. "
                "Use the choices in its fuser_config.json."
            )
        model.fuser.load_state_dict(saved.fuser.state_dict())
        model.is_untrained = False
        rank_zero_info(f"Training starts from the weights of {self.path}.")


def _layout_of(fuser: Fuser) -> tuple[object, ...]:
    """Layer maps, kinds, and the shape of each tensor."""
    maps = [(sharer.layer_map, [type(group) for group in sharer.groups]) for sharer in fuser.sharers]
    return maps, _shapes_of(fuser)


def _shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
