"""Builds the model of a hub's training: fresh, or from a hub that new models join."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.export.hub_description import HubDescription
from c2c_lightning.export.hub_directory import SavedHub
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import Direction, all_directions, check_directions, check_model_names
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.pretrained import reference
from c2c_lightning.training.hub_model import HubModel


@dataclass(frozen=True)
class HubPlan:
    """Models and directions of a training.

    Attributes:
        models: all models by name, those of a joined hub first.
        directions: the directions that are trained.
        joined: the hub that the new models join; its parts are frozen.
    """

    models: Mapping[str, LMSpec]
    directions: tuple[Direction, ...]
    joined: SavedHub | None = None

    @classmethod
    def of(
        cls,
        models: Mapping[str, LMSpec],
        directions: Sequence[str] | None,
        joined: SavedHub | None,
    ) -> "HubPlan":
        """Check names and directions.

        Args:
            models: the models; of a joined hub the new ones only.
            directions: the trained directions; default all, of a joined hub those from and to a new model.
            joined: the hub that they join.

        Raises:
            ConfigurationError: a model that the hub has already, or a direction without a new model.
            FuserConfigError: an impossible name or direction.
        """
        check_model_names(models)
        old = _specs_of(joined)
        _check_new(models, old)
        everyone = {**old, **models}
        new = set(models)
        possible = [d for d in all_directions(list(everyone)) if not joined or {d.sharer, d.receiver} & new]
        chosen = possible if directions is None else [Direction.parse(text) for text in directions]
        check_directions(chosen, list(everyone))
        _check_parts(chosen, possible, new)
        return cls(everyone, tuple(chosen), joined)

    def build(self, config: FuserConfig, device: torch.device | None = None) -> HubModel:
        """Load every language model once, and make the hub."""
        lms = {name: load_frozen(spec, None if device is None else str(device)) for name, spec in self.models.items()}
        known = () if self.joined is None else self.joined.description.directions
        references = {name: reference(lm) for name, lm in lms.items()}
        description = HubDescription(config, references, (*known, *self.directions))
        fuser = description.build()
        if self.joined is not None:
            state = self.joined.fuser.state_dict()
            fuser.load_state_dict(state, strict=False)
            fuser.freeze(list(state))
        if config.gate_noise == "none":
            fuser.direction_gates.requires_grad_(False)
        return HubModel(lms, fuser.to(device), description, self.directions)


def joined_config(config: FuserConfig, joined: SavedHub | None) -> FuserConfig:
    """The fuser's configuration: with a hub that is joined, that of the hub.

    Raises:
        ConfigurationError: other sizes, a latent of another width among them, than those of the hub.
    """
    if joined is None:
        return config
    theirs = joined.description.config
    given, theirs_sizes = config.kinds(1), theirs.kinds(1)
    if given != theirs_sizes or config.layer_alignment != theirs.layer_alignment:
        raise ConfigurationError(
            f"the hub has the fuser {theirs_sizes[0][1]} with layer alignment {theirs.layer_alignment!r}, but "
            f"`model.fuser` has {given[0][1]} and {config.layer_alignment!r}. Models join a hub with its sizes: repeat "
            "the hub's `fuser` settings."
        )
    return replace(config, token_alignment=theirs.token_alignment)


def _specs_of(joined: SavedHub | None) -> dict[str, LMSpec]:
    if joined is None:
        return {}
    named = partial(LMSpec, dtype="auto")
    models = joined.description.models
    return {
        name: replace(
            named(model.name, model.revision),
            prompt_template=model.prompt_template,
            chat_template_kwargs=model.chat_template_kwargs,
        )
        for name, model in models.items()
    }


def _check_new(models: Mapping[str, LMSpec], old: Mapping[str, LMSpec]) -> None:
    """Refuse models that a hub has already, and a hub of one model.

    Raises:
        ConfigurationError: with the names.
    """
    for name, spec in models.items():
        if name in old:
            raise ConfigurationError(f"the hub has a model {name!r} already ({old[name].path}). Give another name.")
        same = [other for other, known in old.items() if (known.path, known.revision) == (spec.path, spec.revision)]
        if same:
            raise ConfigurationError(
                f"the model {name!r} is {spec.path}, which the hub has already as {same[0]!r}. Export its pairs from "
                "the hub, or name another model."
            )
    if len(models) + len(old) < 2 or not models:
        raise ConfigurationError("`model.models` needs two models at least, or one that joins a hub (`model.hub`).")


def _check_parts(chosen: Sequence[Direction], possible: Sequence[Direction], new: set[str]) -> None:
    """Refuse directions without a part that is trained, and models without a direction.

    Raises:
        ConfigurationError: with the names.
    """
    if frozen := [str(direction) for direction in chosen if direction not in possible]:
        raise ConfigurationError(
            f"the directions {', '.join(frozen)} lie between models of the hub that is joined, whose parts are "
            "frozen. Name directions from or to a new model."
        )
    if idle := sorted(new - {name for direction in chosen for name in (direction.sharer, direction.receiver)}):
        raise ConfigurationError(f"{', '.join(idle)} is in none of the directions. Name one, or leave the model out.")
