"""What each layer of a fuser contributes, and which layers may be removed (the rule of Latent Cache Flow, 2605.22863).

1. Layers whose gates are closed.
2. Layers whose removal alone raises the accuracy.
3. Of the rest, those whose removal alone costs least, until as many are left as wanted.

The accuracy is the share of rows whose response is, token by token, the model's most probable one: the responses that
greedy decoding gives exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from c2c_lightning.analysis.row_scores import RowScore, row_score
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.pruning import closed_layers, fused_layers, without_layers
from c2c_lightning.model.c2c import C2CModel

Layer = tuple[int, int]
"""Sharer, receiver layer."""


@dataclass(frozen=True)
class Ablation:
    """The layers to remove.

    Attributes:
        dropped: for each sharer its receiver layers.
        whole: score of the whole fuser.
        alone: score of the fuser without one layer, for each layer that has an open gate.
    """

    dropped: list[set[int]]
    whole: RowScore
    alone: dict[Layer, RowScore]


def ablate(
    model: C2CModel, batches: Sequence[TrainingBatch], keep: int | None = None, done: Callable[[], None] = lambda: None
) -> Ablation:
    """Measure each layer on some rows and choose those to remove.

    Args:
        model: the fused model, in evaluation mode.
        batches: the rows.
        keep: largest number of layers to keep, over all sharers; default all that do not lower the accuracy.
        done: called after each measured layer.

    Raises:
        FuserConfigError: `keep` is below 1.
    """
    if keep is not None and keep < 1:
        raise FuserConfigError(f"{keep} layers cannot be kept: a fuser needs at least 1.")
    dropped, whole = closed_layers(model.fuser), row_score(model, batches)
    layers = [(s, n) for s, of_sharer in enumerate(fused_layers(model.fuser)) for n in of_sharer if n not in dropped[s]]
    alone = {}
    for layer in layers:
        alone[layer] = row_score(_with_fuser(model, _without_one(model.fuser, layer)), batches)
        done()
    harmful = [layer for layer in layers if alone[layer].accuracy > whole.accuracy]
    # The best of them is the layer that is missed least.
    rest = sorted((layer for layer in layers if layer not in harmful), key=alone.__getitem__, reverse=True)
    surplus = rest[: max(0, len(rest) - keep)] if keep is not None else []
    for number, index in (*harmful, *surplus):
        dropped[number].add(index)
    return Ablation(dropped, whole, alone)


def pruned_model(model: C2CModel, dropped: Sequence[set[int]]) -> C2CModel:
    """The fused model without some layers; the language models are the same."""
    return _with_fuser(model, without_layers(model.fuser, dropped))


def num_measured(fuser: Fuser) -> int:
    """Number of layers that `ablate` measures."""
    closed = closed_layers(fuser)
    return sum(len(set(layers) - out) for layers, out in zip(fused_layers(fuser), closed, strict=True))


def _without_one(fuser: Fuser, layer: Layer) -> Fuser:
    return without_layers(fuser, [{layer[1]} if number == layer[0] else set() for number in range(len(fuser.sharers))])


def _with_fuser(model: C2CModel, fuser: Fuser) -> C2CModel:
    return C2CModel(model.receiver, model.sharers, fuser).eval()
