"""How many floating-point operations are needed: matrix products only, a multiplication and an addition being two.

Needed means: real tokens, no padding; of the last layer that a prefill reads only keys and values; sharer layers up
to the deepest that is read; an output head only where there is a label or a token to choose; weight gradients in the
fuser alone, none to what its first maps read, since caches are constants; the receiver's backward pass only down to
the lowest fused layer, and there only to the fused entries. Attention counts the pairs that the causal mask leaves.
Norms, activations, rotations, softmax and the optimizer are left out, as in `torch.utils.flop_counter`; so are, with
several sharers in sequence, the gradients from a later one's fuser to what an earlier one's has written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.profiling.shapes import FuserShape, LMShape, PairShape

Pairs = Callable[[int, int], int]
"""Given new tokens and those before them, how many pairs of query and key attention computes."""


def causal_pairs(new: int, prefix: int) -> int:
    """Each new token with all before it and itself: what is needed."""
    return new * prefix + new * (new + 1) // 2


def all_pairs(new: int, prefix: int) -> int:
    """Each new token with every token: what attention computes that masks only afterwards."""
    return new * (prefix + new)


@dataclass(frozen=True)
class Sample:
    """How many real tokens one training example has.

    Attributes:
        prefix: receiver tokens up to the last fused one, which are prefilled.
        sharers: tokens that each sharer prefills.
        fused: tokens that each sharer is fused into.
        new: tokens that the receiver runs on the fused cache: the rest of the prompt, the response but its last token.
        labelled: tokens with a label.
    """

    prefix: int
    sharers: tuple[int, ...]
    fused: tuple[int, ...]
    new: int
    labelled: int

    @classmethod
    def shared(cls, prompt: int, response: int) -> Self:
        """One sharer that reads the same prompt; every prompt token but the last is fused."""
        return cls(prompt - 1, (prompt - 1,), (prompt - 1,), response, response)


def samples_of(batch: TrainingBatch) -> list[Sample]:
    """The real tokens of a batch's rows."""
    prompt, samples = batch.prompt, []
    for row in range(len(batch)):
        real = prompt.receiver.mask[row].bool()
        reads = [sharer.index[row] for sharer in prompt.sharers]
        end = max((_last(index >= 0) for index in reads), default=0)
        labelled = int(batch.response_mask[row].sum())
        prefix = int(real[:end].sum())
        samples.append(
            Sample(
                prefix=prefix,
                sharers=tuple(
                    int(sharer.mask[row, : int(index.max()) + 1].sum())
                    for sharer, index in zip(prompt.sharers, reads, strict=True)
                ),
                fused=tuple(int((index[:-1] >= 0).sum()) for index in reads),
                new=int(real.sum()) - prefix + max(labelled - 1, 0),
                labelled=labelled,
            )
        )
    return samples


def _last(flags: Tensor) -> int:
    """One more than the last place that is true, 0 if none is."""
    places = torch.nonzero(flags)
    return int(places.max()) + 1 if len(places) else 0


@dataclass(frozen=True)
class StepWork:
    """Needed operations of a training step, part by part, in FLOP."""

    sharer_prefill: int
    receiver_prefill: int
    fuser_forward: int
    fuser_backward: int
    receiver_forward: int
    receiver_backward: int

    @property
    def total(self) -> int:
        """All parts together, in FLOP."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Each part by its name, in FLOP."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: "StepWork") -> "StepWork":
        """Both steps' work."""
        theirs = other.parts()
        return StepWork(**{name: flop + theirs[name] for name, flop in self.parts().items()})


def attention(lm: LMShape, pairs: int) -> int:
    """FLOP of one layer's two attention products over `pairs` of query and key."""
    return 4 * lm.heads * lm.head_dim * pairs


def prefill(lm: LMShape, new: int, prefix: int = 0, num_layers: int | None = None, pairs: Pairs = causal_pairs) -> int:
    """FLOP for the keys and values of one sequence.

    Args:
        lm: the model.
        new: tokens to run.
        prefix: tokens in the cache already.
        num_layers: how many layers are read, from the first; default all.
        pairs: which attention pairs count.
    """
    depth = lm.num_layers if num_layers is None else num_layers
    if not depth or not new:
        return 0
    whole = 2 * new * (lm.kv_weights + lm.other_weights) + attention(lm, pairs(new, prefix))
    return (depth - 1) * whole + 2 * new * lm.kv_weights


def forward(lm: LMShape, new: int, prefix: int, heads: int, pairs: Pairs = causal_pairs) -> int:
    """FLOP of one sequence's whole pass, with the output head at `heads` of its tokens."""
    layer = 2 * new * (lm.kv_weights + lm.other_weights) + attention(lm, pairs(new, prefix))
    return lm.num_layers * layer + 2 * heads * lm.head_weights


def backward(lm: LMShape, new: int, prefix: int, heads: int, lowest: int, pairs: Pairs = causal_pairs) -> int:
    """FLOP of the gradients to one sequence's activations, down to the cache of layer `lowest`; none to weights.

    In the lowest fused layer nothing flows into queries and into the new tokens' own keys and values: what is below
    it is constant. There only the gradients to the prefix's entries are needed, and so three products over pairs with
    the prefix: to the probabilities, to the keys, to the values.
    """
    if lowest >= lm.num_layers:
        return 0
    maps = 2 * new * (lm.kv_weights + lm.other_weights)
    whole = maps + 2 * attention(lm, pairs(new, prefix))
    unread = 2 * new * (lm.kv_weights + lm.hidden * lm.heads * lm.head_dim)
    last = maps - unread + 3 * attention(lm, new * prefix) // 2
    return (lm.num_layers - lowest - 1) * whole + last + 2 * heads * lm.head_weights


def fuse(fuser: FuserShape, tokens: int) -> int:
    """FLOP of fusing `tokens` of one sharer, all layers."""
    return 2 * tokens * (fuser.first_weights + fuser.other_weights)


def fuse_backward(fuser: FuserShape, tokens: int) -> int:
    """FLOP of the fuser's gradients: to all its weights, and to activations but for what the first maps read."""
    return 2 * tokens * (fuser.first_weights + 2 * fuser.other_weights)


def decode(lm: LMShape, context: int) -> int:
    """FLOP of one new token after `context` others, with its logits."""
    return forward(lm, 1, context, heads=1)


def training_step(pair: PairShape, samples: Sequence[Sample], pairs: Pairs = causal_pairs) -> StepWork:
    """Needed work of a training step on some samples, however they are batched."""
    work = StepWork(0, 0, 0, 0, 0, 0)
    for sample in samples:
        work += _one_sample(pair, sample, pairs)
    return work


def _one_sample(pair: PairShape, sample: Sample, pairs: Pairs) -> StepWork:
    lm, fused = pair.receiver, list(zip(pair.fusers, sample.fused, strict=True))
    lowest = min((fuser.lowest_layer for fuser, tokens in fused if tokens), default=lm.num_layers)
    sharers = zip(pair.sharers, pair.fusers, sample.sharers, strict=True)
    # `replace` has one sharer; of the prefix, only tokens that are not fused run.
    replaced = sample.fused[0] if pair.replaces_receiver else 0
    return StepWork(
        sharer_prefill=sum(prefill(s, tokens, 0, f.sharer_layers, pairs) for s, f, tokens in sharers),
        receiver_prefill=prefill(lm, sample.prefix - replaced, replaced, pairs=pairs),
        fuser_forward=sum(fuse(fuser, tokens) for fuser, tokens in fused),
        fuser_backward=sum(fuse_backward(fuser, tokens) for fuser, tokens in fused),
        receiver_forward=forward(lm, sample.new, sample.prefix, sample.labelled, pairs),
        receiver_backward=backward(lm, sample.new, sample.prefix, sample.labelled, lowest, pairs),
    )
