"""Reads the files of a fuser that the paper's authors published (hub: `nics-efc/C2C_Fuser`).

Their directory holds `config.json` (of the training run) and `final/` with, for each receiver layer, `projector_{i}.pt`
and `projector_{i}.json`, and `projector_config.json`, which says which layer uses which projector. Pickles are only
ever opened with `weights_only=True`, and only here.
"""

import logging
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.from_checkpoint import damage_of
from c2c_lightning.export.json_file import read_json
from c2c_lightning.export.released.projector_layout import ProjectorLayout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReleasedSharer:
    """The part of one released directory that belongs to one sharer.

    `settings` is the `model` part of its `config.json`; `sources` and `projectors` have, for each fused receiver layer,
    the sharer layer and the projector.
    """

    folder: Path
    settings: dict[str, Any]
    sources: dict[int, int]
    projectors: dict[int, ProjectorLayout]

    def named(self, role: str) -> str | None:
        """The model that `config.json` names; a folder relative to it is preferred to a hub id."""
        name = self.settings.get(role)
        if not isinstance(name, str):
            return None
        places = (self.folder / name, self.folder.parent / name)
        return next((str(place.resolve()) for place in places if place.is_dir()), name)

    @property
    def token_alignment(self) -> str:
        """Token alignment, from their switch and strategy."""
        if not self.settings.get("is_do_alignment", False):
            return "auto"
        return str(self.settings.get("alignment_strategy", "first"))


def read_released(input_dir: Path) -> list[ReleasedSharer]:
    """All sharers of one released directory: the one that holds `final/`, or `final/` itself."""
    final = input_dir if (input_dir / "projector_config.json").is_file() else input_dir / "final"
    if not (final / "projector_config.json").is_file():
        raise FuserFormatError(
            f"{input_dir} holds no projector_config.json (nor does its folder final/), so it is no released fuser."
        )
    layout = read_json(final / "projector_config.json")
    if set(layout) != {"0"}:
        raise FuserFormatError(
            f"{final / 'projector_config.json'} has receivers {sorted(layout)}; only one, 0, can be read."
        )
    run = next((folder for folder in (final, final.parent) if (folder / "config.json").is_file()), None)
    settings = {} if run is None else read_json(run / "config.json").get("model", {})
    by_number = sorted(layout["0"].items(), key=lambda item: int(item[0]))
    return [_read_sharer(final, run or input_dir, settings, layers) for _, layers in by_number]


def _read_sharer(final: Path, folder: Path, settings: dict[str, Any], layers: dict[str, Any]) -> ReleasedSharer:
    # Only the first of several pairs has any effect in their code.
    used = {int(layer): pairs[0] for layer, pairs in layers.items() if pairs}
    if dropped := sum(len(pairs) - 1 for pairs in layers.values() if pairs):
        logger.warning("%s: %d projectors after the first of a layer have no effect and are left out", final, dropped)
    if not used:
        raise FuserFormatError(f"{final / 'projector_config.json'} fuses no layer.")
    files = {index: read_projector(final, index) for _, index in used.values()}
    sources = {layer: int(source) for layer, (source, _) in used.items()}
    return ReleasedSharer(folder, settings, sources, {layer: files[index] for layer, (_, index) in used.items()})


def read_projector(final: Path, index: int) -> ProjectorLayout:
    """One projector with its constructor arguments."""
    described, path = read_json(final / f"projector_{index}.json"), final / f"projector_{index}.pt"
    if not path.is_file():
        raise FuserFormatError(f"{path} is missing. Download the fuser again.")
    # Files of old torch versions are no archives and have no checksums.
    if zipfile.is_zipfile(path) and (damage := damage_of(path)):
        raise FuserFormatError(f"{damage} Download it again.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FuserFormatError(
            f"{path} is no state dict of tensors, or cut short ({cause}). Nothing in it was run. Download it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise FuserFormatError(f"{path} is no state dict of tensors.")
    return ProjectorLayout(str(path), described.get("class", ""), described.get("init_args", {}), state)
