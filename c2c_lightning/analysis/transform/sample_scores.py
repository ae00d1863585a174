"""What is measured on held-out text, sample by sample.

Axes: n samples, F aligned tokens of a batch, H KV heads, D head width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.analysis.transform.compared_attention import AttentionComparison, compared_attention
from c2c_lightning.analysis.transform.model_pair import PARTS, AlignedEntries, Part, PartEntries
from c2c_lightning.analysis.transform.response_losses import response_losses, response_states
from c2c_lightning.analysis.transform.transform_model import FlatMap, MapName, TransformModel, flat, transformed
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.kv.layer import LayerStack

KeyPart = Literal["keys", "position_free_keys"]
KEY_PARTS: tuple[KeyPart, ...] = ("keys", "position_free_keys")
"""Which map of the keys is used with that of the values."""

Scope = Literal["all_layers", "last_layer"]
SCOPES: tuple[Scope, ...] = ("all_layers", "last_layer")
"""Layers of which entries are replaced: every aligned layer, or the last one alone."""

Source = MapName | Literal["sharer", "receiver"]
Place = tuple[Source, Part, int]
"""Map or model, part, and index of a pair of layers."""

AllMaps = Mapping[MapName, Mapping[Part, Sequence[FlatMap]]]


@dataclass(frozen=True)
class SampleScores:
    """Scores of n samples.

    Attributes:
        tokens: (n,), aligned tokens.
        response_tokens: (n,), supervised response tokens.
        errors: (n,), mean over tokens of the squared distance to the target.
        cosines: (n, H), mean over tokens of the cosine with the target, for each head.
        attention: (n,), cosine of attention outputs, mean over the last prompt token, all response tokens and heads.
        losses: (n,), summed loss of the response on replaced entries, in nats, by map, key part and scope.
        receiver_loss: (n,), on the receiver's own entries.
        points: (n, width), the entries of one token of each sample.
        pooled: (n, width), mean over the tokens of each sample, of the last pair of layers.
    """

    tokens: Int[Tensor, " n"]
    response_tokens: Int[Tensor, " n"]
    errors: dict[Place, Float[Tensor, " n"]]
    cosines: dict[Place, Float[Tensor, "n _"]]
    attention: dict[Place, Float[Tensor, " n"]]
    losses: dict[tuple[MapName, KeyPart, Scope], Float[Tensor, " n"]]
    receiver_loss: Float[Tensor, " n"]
    points: dict[Place, Float[Tensor, "n _"]]
    pooled: dict[tuple[Source, Part], Float[Tensor, "n _"]]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.tokens)

    @classmethod
    def join(cls, parts: Sequence["SampleScores"]) -> "SampleScores":
        """All samples of several batches that have aligned tokens, on the CPU."""
        keep = torch.cat([part.tokens for part in parts]).cpu() > 0

        def joined(values: list[Tensor]) -> Tensor:
            return torch.cat(values).cpu()[keep]

        columns: dict[str, Any] = {}
        for field in fields(cls):
            found = [getattr(part, field.name) for part in parts]
            is_one = isinstance(found[0], Tensor)
            columns[field.name] = joined(found) if is_one else {k: joined([f[k] for f in found]) for k in found[0]}
        return cls(**columns)


@torch.no_grad()
def score_batch(model: TransformModel, maps: AllMaps, batch: TrainingBatch, generator: torch.Generator) -> SampleScores:
    """Scores of the rows of a batch; NaN for rows without aligned tokens.

    Args:
        model: the models of the maps, in evaluation mode.
        maps: from `TransformModel.maps`.
        batch: prompts and responses.
        generator: chooses the token of each row whose entries are points.
    """
    batch = batch.to(model.receiver.device)
    entries = model.pair.entries(batch.prompt)
    found: dict[Source, PartEntries] = {"sharer": entries.sharer, "receiver": entries.receiver}
    found |= {name: transformed(maps[name], entries) for name in maps}
    row, rows = entries.tokens.row, len(batch)
    counts = torch.bincount(row, minlength=rows)
    chosen = _one_of_each(counts, generator)
    errors, cosines = _distances(found, list(maps), row, rows)
    stacks = {
        (name, part): model.pair.replaced(entries, found[name][part], found[name]["values"], part != "keys")
        for name in maps
        for part in KEY_PARTS
    }
    attention = _attention_cosines(model, batch, entries, stacks)
    losses, own = _losses(model, batch, entries, stacks)
    places = [(name, part, n) for name in found for part in PARTS for n in range(len(model.pair.layers))]
    return SampleScores(
        counts, batch.response_mask.sum(1), errors, cosines, attention, losses, own,
        {place: _at(flat(found[place[0]][place[1]][place[2]]), chosen) for place in places},
        {(name, part): row_means(flat(found[name][part][-1]), row, rows) for name in found for part in PARTS},
    )  # fmt: skip


def row_means(values: Float[Tensor, "F *rest"], row: Int[Tensor, " F"], rows: int) -> Float[Tensor, "rows *rest"]:
    """Mean over the tokens of each row; NaN for a row without any.

    Example:
        >>> row_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), 2).tolist()
        [2.0, 5.0]
    """
    sums = values.new_zeros(rows, *values.shape[1:]).index_add_(0, row, values)
    counts = torch.bincount(row, minlength=rows)
    return sums / counts.view(-1, *[1] * (values.ndim - 1))


def _one_of_each(counts: Int[Tensor, " rows"], generator: torch.Generator) -> Int[Tensor, " rows"]:
    """Index of a random token of each row among all tokens; -1 for a row without any."""
    drawn = torch.rand(len(counts), generator=generator).to(counts.device)
    offset = (drawn * counts).long().clamp(max=(counts - 1).clamp(min=0))
    return torch.where(counts > 0, counts.cumsum(0) - counts + offset, -1)


def _at(entries: Float[Tensor, "F width"], index: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
    """The entries of some tokens, NaN for index -1."""
    padded = torch.cat([entries, entries.new_full((1, entries.shape[1]), torch.nan)])
    return padded[index]


def _distances(
    found: Mapping[Source, PartEntries], names: Sequence[MapName], row: Tensor, rows: int
) -> tuple[dict[Place, Tensor], dict[Place, Tensor]]:
    """Squared errors and cosines of transformed entries."""
    errors: dict[Place, Tensor] = {}
    cosines: dict[Place, Tensor] = {}
    for name in names:
        for part in PARTS:
            for n, (y, target) in enumerate(zip(found[name][part], found["receiver"][part], strict=True)):
                errors[name, part, n] = row_means((y - target).square().sum((1, 2)), row, rows)
                cosines[name, part, n] = row_means(F.cosine_similarity(y, target, dim=-1), row, rows)
    return errors, cosines


def _attention_cosines(
    model: TransformModel,
    batch: TrainingBatch,
    entries: AlignedEntries,
    stacks: Mapping[tuple[MapName, KeyPart], LayerStack],
) -> dict[Place, Tensor]:
    """Cosine of attention outputs on replaced entries with those on the receiver's own."""
    receiver, layers = model.receiver, [n for n, _ in model.pair.layers]
    comparison = AttentionComparison({"/".join(name): stack for name, stack in stacks.items()}, layers)
    with receiver.lock, compared_attention(receiver.model, comparison):
        response_states(receiver, batch, entries.receiver_kv)
    is_read = torch.cat([batch.response_mask[:, :1].new_ones(len(batch), 1), batch.response_inputs.mask.bool()], 1)
    found: dict[Place, Tensor] = {}
    for name, part in stacks:
        for index, layer in enumerate(layers):
            of_token = comparison.cosines[f"{name}/{part}"][layer].mean(-1)  # (batch, tokens)
            found[name, part, index] = (of_token * is_read).sum(1) / is_read.sum(1)
    return found


def _losses(
    model: TransformModel,
    batch: TrainingBatch,
    entries: AlignedEntries,
    stacks: Mapping[tuple[MapName, KeyPart], LayerStack],
) -> tuple[dict[tuple[MapName, KeyPart, Scope], Tensor], Tensor]:
    """Losses on replaced entries, and on the receiver's own."""
    own, last = entries.receiver_kv, model.pair.layers[-1][0]
    losses: dict[tuple[MapName, KeyPart, Scope], Tensor] = {}
    for (name, part), stack in stacks.items():
        whole = response_losses(model.receiver, batch, stack)
        losses[name, part, "all_layers"] = losses[name, part, "last_layer"] = whole
        if len(model.pair.layers) > 1:
            only_last = [stack[n] if n == last else layer for n, layer in enumerate(own)]
            losses[name, part, "last_layer"] = response_losses(model.receiver, batch, only_last)
    return losses, response_losses(model.receiver, batch, own)
