"""The models of a hub and the correspondence between their layers and those of the common latent."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerMap
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import Direction, check_directions, check_model_names
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.hub_kind import HubConfig, HubKind
from c2c_lightning.kv.geometry import KVGeometry


@dataclass(frozen=True)
class HubLayout:
    """Models and sizes of a hub, without weights.

    Attributes:
        geometries: shapes of each model's cache, by its name.
        config: configuration of the fuser of every direction, without layer maps.
    """

    geometries: Mapping[str, KVGeometry]
    config: FuserConfig

    def __post_init__(self) -> None:
        """Refuse models that cannot be part of a hub, and another kind than `hub`."""
        check_model_names(self.geometries)
        hub_config(self.config)
        for name, geometry in self.geometries.items():
            if any(layer.is_latent for layer in geometry.layers):
                raise FuserConfigError(
                    f"the model {name!r} has latent attention (MLA): its cache holds no complete keys and values, "
                    "which a hub needs. Leave it out, or train a fuser of another kind for its pairs."
                )

    @property
    def kind_config(self) -> HubConfig:
        """Sizes of the latent, and the kind of the decoders."""
        return hub_config(self.config)

    def latent_layers(self, receiver: str) -> LayerMap:
        """For each layer of a receiver the latent layer that it reads, or None."""
        return self._align(self.geometries[receiver].num_layers, self.kind_config.latent.latent_layers)

    def sharer_layers(self, sharer: str) -> LayerMap:
        """For each latent layer the sharer layer that it is encoded from, or None."""
        return self._align(self.kind_config.latent.latent_layers, self.geometries[sharer].num_layers)

    def pair_config(self, direction: Direction) -> FuserConfig:
        """Configuration of the fuser of a direction, with its layer map."""
        sharer_layers = self.sharer_layers(direction.sharer)
        read = self.latent_layers(direction.receiver)
        return replace(self.config, layer_map=[[None if n is None else sharer_layers[n] for n in read]])

    def new_pair(self, direction: Direction) -> Fuser:
        """The fuser of a direction without weights, on the meta device.

        Raises:
            FuserConfigError: an unknown model.
        """
        check_directions([direction], list(self.geometries))
        receiver, sharer = self.geometries[direction.receiver], self.geometries[direction.sharer]
        with torch.device("meta"):
            return Fuser(receiver, [sharer], self.pair_config(direction))

    def _align(self, num_readers: int, num_read: int) -> LayerMap:
        return ALIGNMENTS[self.config.layer_alignment](num_readers, num_read)


def hub_config(config: FuserConfig) -> HubConfig:
    """The configuration of the kind `hub` in that of a fuser.

    Raises:
        FuserConfigError: another kind, or settings that belong to a single pair.
    """
    ((kind, settings),) = config.kinds(1)
    if kind is not HubKind:
        raise FuserConfigError(f"the fusers of a hub are of kind `hub`, not {config.kind!r}. Set `fuser.kind: hub`.")
    if config.layer_map is not None or config.sharer_kinds is not None:
        raise FuserConfigError(
            "`layer_map` and `sharer_kinds` belong to one pair of models. A hub aligns every model's layers with those "
            "of its latent: set `layer_alignment`."
        )
    if config.layer_alignment not in ALIGNMENTS:
        raise FuserConfigError(
            f"`layer_alignment: {config.layer_alignment}` is measured on one pair of models, but a hub aligns every "
            f"model with its latent. Choose one of {', '.join(ALIGNMENTS)}."
        )
    hub: HubConfig = settings
    return hub
