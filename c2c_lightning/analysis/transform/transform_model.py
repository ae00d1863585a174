"""All maps of a pair of models: one for each pair of layers and each part of the cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.analysis.transform.entry_map import EntryMapConfig, EntryMLP, EntryMoments, EntryScales
from c2c_lightning.analysis.transform.model_pair import PARTS, AlignedEntries, ModelPair, Part, PartEntries
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.errors import DataError
from c2c_lightning.model.frozen_lm import FrozenLM

MapName = Literal["mlp", "ridge", "mean"]
MAPS: tuple[MapName, ...] = ("mlp", "ridge", "mean")
"""The paper's map, the linear map that it has to beat, and the floor."""

FlatMap = Callable[[Float[Tensor, "F inputs"]], Float[Tensor, "F outputs"]]


class LayerTransform(nn.Module):
    """The maps of one part of one pair of layers.

    Attributes:
        scales: means and scales of inputs and targets.
        moments: sums over the training tokens.
        mlp: the trained map, on standardised entries.
    """

    def __init__(self, in_dim: int, out_dim: int, config: EntryMapConfig) -> None:
        super().__init__()
        self.scales, self.moments = EntryScales(in_dim, out_dim), EntryMoments(in_dim, out_dim)
        self.mlp = EntryMLP(in_dim, out_dim, config)
        self.regularisation = config.ridge

    def error(
        self, x: Float[Tensor, "F inputs"], y: Float[Tensor, "F outputs"], add_moments: bool
    ) -> Float[Tensor, ""]:
        """Mean squared error of the MLP in units of the target's variance; 0 for no tokens."""
        x, y = self.scales.inputs(x), self.scales.targets(y)
        if add_moments:
            self.moments.add(x, y)
        errors: Tensor = (self.mlp(x).float() - y).square().mean(1)
        # A sum: the mean over no tokens is not a number.
        return errors.sum() / max(1, len(x))

    def flat_map(self, name: MapName) -> FlatMap:
        """A map from sharer entries to receiver entries.

        Raises:
            DataError: fewer training tokens than the ridge map needs.
        """
        if name == "mean":
            mean = self.moments.mean()
            return lambda x: self.scales.entries(mean.expand(len(x), -1))
        on_standardised = self.mlp if name == "mlp" else self.moments.ridge_map(self.regularisation)
        return lambda x: self.scales.entries(on_standardised(self.scales.inputs(x)).float())


class TransformModel(nn.Module):
    """Three-layer MLPs for keys, for keys without position and for values of each pair of layers, trained apart.

    Attributes:
        pair: the frozen models.
        is_untrained: whether scales are unknown: neither measured nor loaded.
    """

    is_untrained = True

    def __init__(self, pair: ModelPair, config: EntryMapConfig) -> None:
        """Build fresh maps."""
        super().__init__()
        self.pair = pair
        self.parts = nn.ModuleList(
            nn.ModuleList(LayerTransform(*widths, config) for widths in pair.widths(part)) for part in PARTS
        )

    @property
    def receiver(self) -> FrozenLM:
        """The receiver."""
        return self.pair.receiver

    def prompt_texts(self, batch: TrainingBatch) -> list[str]:
        """The prompts as the receiver reads them."""
        return batch.prompt_texts(self.receiver.tokenizer)

    def layers(self, part: Part) -> list[LayerTransform]:
        """The maps of one part, for each pair of layers."""
        found: Any = self.parts[PARTS.index(part)]
        return list(found)

    @torch.no_grad()
    def measure_scales(self, prompts: Iterable[PromptBatch], num_tokens: int) -> None:
        """Set means and scales from the first aligned tokens of the training data.

        Raises:
            DataError: fewer than 2 aligned tokens.
        """
        found: list[AlignedEntries] = []
        count = 0
        for prompt in prompts:
            found.append(self.pair.entries(prompt))
            count += len(found[-1].tokens)
            if count >= num_tokens:
                break
        if count < 2:
            raise DataError(
                f"the training data has {count} aligned tokens. Give more rows, or another `token_alignment`."
            )
        for part in PARTS:
            for n, layer in enumerate(self.layers(part)):
                sides = ([flat(side[part][n]) for side in sides] for sides in _both(found))
                layer.scales.measure(*(torch.cat(entries) for entries in sides))

    def loss(self, entries: AlignedEntries, add_moments: bool = False) -> Float[Tensor, ""]:
        """Mean squared error of all MLPs, each in units of its target's variance; the mean over them.

        Args:
            entries: the entries of a batch.
            add_moments: whether the tokens count for the ridge map too.
        """
        errors = [
            layer.error(flat(x), flat(y), add_moments)
            for part in PARTS
            for layer, x, y in zip(self.layers(part), entries.sharer[part], entries.receiver[part], strict=True)
        ]
        return torch.stack(errors).mean()

    def maps(self) -> Mapping[MapName, Mapping[Part, Sequence[FlatMap]]]:
        """The maps from flattened sharer entries to flattened receiver entries, layer by layer.

        Raises:
            DataError: fewer training tokens than the ridge map needs.
        """
        return {name: {part: [layer.flat_map(name) for layer in self.layers(part)] for part in PARTS} for name in MAPS}


@torch.no_grad()
def transformed(maps: Mapping[Part, Sequence[FlatMap]], entries: AlignedEntries) -> PartEntries:
    """Sharer entries transformed by one kind of map."""
    return {
        part: [
            of_layer(flat(x)).view_as(y)
            for of_layer, x, y in zip(maps[part], entries.sharer[part], entries.receiver[part], strict=True)
        ]
        for part in PARTS
    }


def flat(entries: Float[Tensor, "F H D"]) -> Float[Tensor, "F width"]:
    """All heads of a token side by side."""
    return entries.flatten(1)


def _both(found: Sequence[AlignedEntries]) -> tuple[list[PartEntries], list[PartEntries]]:
    return [entries.sharer for entries in found], [entries.receiver for entries in found]
