"""The content of `hub_config.json`: the models of a hub, its trained directions and the sizes of its latent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from c2c_lightning.errors import C2CError, FuserFormatError
from c2c_lightning.export.description import (
    FORMAT_VERSION,
    FuserDescription,
    ModelReference,
    TrainingRecord,
    check_version,
    config_to_json,
    parse_config,
)
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import Direction, check_directions, check_model_names
from c2c_lightning.fuser.hub_fuser import HubFuser
from c2c_lightning.fuser.hub_layout import hub_config


@dataclass(frozen=True)
class HubDescription:
    """Everything about a hub but its weights.

    Attributes:
        config: configuration of the fuser of every direction, without layer maps.
        models: the models by name.
        directions: the trained directions.
        training: how the hub was trained.
    """

    config: FuserConfig
    models: Mapping[str, ModelReference]
    directions: tuple[Direction, ...]
    training: TrainingRecord | None = None

    def build(self) -> HubFuser:
        """A hub with fresh weights."""
        return HubFuser({name: model.geometry for name, model in self.models.items()}, self.config, self.directions)

    def pair(self, fuser: HubFuser, direction: Direction) -> FuserDescription:
        """The description of the fuser of one direction."""
        receiver, sharer = self.models[direction.receiver], self.models[direction.sharer]
        return FuserDescription(fuser.layout.pair_config(direction), receiver, (sharer,), self.training)

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        latent = hub_config(self.config).latent
        sizes = {"latent": [latent.latent_layers, latent.latent_dim]}
        return {
            "hub_format_version": FORMAT_VERSION,
            "fuser": config_to_json(self.config),
            "models": {name: {**model.to_json(), **sizes} for name, model in self.models.items()},
            "directions": [str(direction) for direction in self.directions],
            "training": None if self.training is None else asdict(self.training),
        }

    @classmethod
    def from_json(cls, raw: Any, where: str) -> Self:
        """The inverse of `to_json`; `where` is the name of the file, for messages.

        Raises:
            FuserFormatError: another format, or content that is not that of a hub.
        """
        check_version(raw, where, "hub_format_version")
        try:
            recorded = {name: dict(model) for name, model in raw["models"].items()}
            latents = {name: model.pop("latent") for name, model in recorded.items()}
            description = cls(
                parse_config(raw["fuser"]),
                {name: ModelReference.from_json(model) for name, model in recorded.items()},
                tuple(Direction.parse(text) for text in raw["directions"]),
                None if raw["training"] is None else TrainingRecord(**raw["training"]),
            )
            latent = hub_config(description.config).latent
            check_model_names(description.models)
            check_directions(description.directions, list(description.models))
        except (KeyError, TypeError, ValueError, AttributeError, C2CError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise FuserFormatError(
                f"{where} is not the description of a hub: {cause}. Write the hub again, or download it again."
            ) from error
        wanted = [latent.latent_layers, latent.latent_dim]
        for name, sizes in latents.items():
            if sizes != wanted:
                raise FuserFormatError(
                    f"{where}: the latent of the model {name!r} has [layers, width] {sizes}, but that of the hub has "
                    f"{wanted}. Parts of different hubs cannot be combined: train the model to join this hub."
                )
        return description
