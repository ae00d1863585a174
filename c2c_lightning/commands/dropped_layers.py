"""The layers that `lightning export --drop_layers` names."""

import json
from pathlib import Path

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.pruning import fused_layers

FORM = "Write layers as 3,5 (with several sharers 0:3,1:5), or name the layers.json of `lightning analyze layers`."


def read_dropped_layers(text: str, fuser: Fuser) -> list[set[int]]:
    """For each sharer the receiver layers to remove.

    Args:
        text: numbers of layers, or pairs SHARER:LAYER, separated by commas; or the file of `lightning analyze layers`.
        fuser: the fuser that they belong to.

    Raises:
        FuserConfigError: no layer, text in another form, or a layer that the fuser does not have.
    """
    pairs = _from_file(Path(text)) if text.endswith(".json") else _from_text(text, len(fuser.sharers))
    if not pairs:
        raise FuserConfigError(f"--drop_layers {text} names no layer, so nothing would be removed. {FORM}")
    known = fused_layers(fuser)
    dropped: list[set[int]] = [set() for _ in known]
    for sharer, layer in pairs:
        if not 0 <= sharer < len(known):
            raise FuserConfigError(f"--drop_layers names sharer {sharer}, but the sharers are 0 to {len(known) - 1}.")
        if layer not in known[sharer]:
            layers = ", ".join(map(str, known[sharer]))
            raise FuserConfigError(
                f"--drop_layers names layer {layer}, but the layers fused with sharer {sharer} are {layers}."
            )
        dropped[sharer].add(layer)
    return dropped


def _from_text(text: str, num_sharers: int) -> list[tuple[int, int]]:
    pairs = []
    for word in text.split(","):
        sharer, found, layer = word.strip().rpartition(":")
        if not layer.isdecimal() or (found and not sharer.isdecimal()) or (not found and num_sharers > 1):
            raise FuserConfigError(f"--drop_layers cannot read {word.strip()!r}. {FORM}")
        pairs.append((int(sharer or 0), int(layer)))
    return pairs


def _from_file(file: Path) -> list[tuple[int, int]]:
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))["drop_layers"]
        return [(sharer, int(layer)) for sharer, layers in enumerate(listed) for layer in layers]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FuserConfigError(f"--drop_layers cannot read a list of layers from {file} ({error!r}). {FORM}") from error
