"""How many bytes a training step moves through a GPU's memory, and how long it takes by that and by its operations.

Counted is what cannot be avoided when each matrix product is a kernel of its own: it reads weights and input once and
writes its output once; caches are written and read; each weight's gradient is written; clipping and AdamW read and
write weights, gradients and moments ten times in all. Norms, activations and attention's inner tensors are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from c2c_lightning.profiling.flops import Sample, StepWork
from c2c_lightning.profiling.shapes import LMShape, PairShape

FUSER_BYTES = 4
"""The fuser, its gradients and moments are float32."""

_OPTIMIZER_PASSES = 10  # norm: 1 read; clipping: 1 read, 1 write; AdamW: 4 reads, 3 writes


def lm_bytes(lm: LMShape, new: int, prefix: int, layers: int, width: int, heads: int = 0) -> int:
    """Bytes of a pass over some layers, forward or back to its activations.

    Args:
        lm: the model.
        new: tokens that are run, of all samples in the pass.
        prefix: cached tokens that are read, likewise.
        layers: how many layers.
        width: bytes of a number.
        heads: tokens with logits.
    """
    cache = 2 * lm.kv_heads * lm.head_dim * (prefix + new)
    layer = lm.kv_weights + lm.other_weights + lm.widths * new + cache
    head = lm.head_weights + heads * (lm.hidden + lm.vocab) if heads else 0
    return width * (layers * layer + head)


def step_bytes(pair: PairShape, samples: Sequence[Sample], width: int) -> dict[str, int]:
    """Bytes of a training step on one batch, part by part as in `StepWork`, and `optimizer`.

    Args:
        pair: the models.
        samples: the batch.
        width: bytes of a number in the frozen models.
    """
    lm, new, prefix = pair.receiver, sum(s.new for s in samples), sum(s.prefix for s in samples)
    labelled = sum(s.labelled for s in samples)
    read = [sum(s.sharers[n] for s in samples) for n in range(len(pair.sharers))]
    fused = [sum(s.fused[n] for s in samples) for n in range(len(pair.sharers))]
    own = prefix - fused[0] if pair.replaces_receiver else prefix
    sharers = zip(pair.sharers, pair.fusers, read, strict=True)
    weights = [fuser.first_weights + fuser.other_weights for fuser in pair.fusers]
    moved = [fuser.widths * tokens for fuser, tokens in zip(pair.fusers, fused, strict=True)]
    return {
        "sharer_prefill": sum(lm_bytes(s, tokens, 0, f.sharer_layers, width) for s, f, tokens in sharers),
        "receiver_prefill": lm_bytes(lm, own, prefix - own, lm.num_layers, width) if own else 0,
        "fuser_forward": FUSER_BYTES * (sum(weights) + sum(moved)),
        # Weights are read and their gradients written; outputs' gradients and inputs are read for the one product,
        # outputs' gradients read and inputs' written for the other.
        "fuser_backward": FUSER_BYTES * (2 * sum(weights) + 2 * sum(moved)),
        "receiver_forward": lm_bytes(lm, new, prefix, lm.num_layers, width, labelled),
        "receiver_backward": lm_bytes(lm, new, prefix, lm.num_layers - pair.lowest_layer, width, labelled),
        "optimizer": FUSER_BYTES * _OPTIMIZER_PASSES * sum(weights),
    }


@dataclass(frozen=True)
class Accelerator:
    """A GPU by its data sheet.

    Attributes:
        name: product name.
        flop_rate: dense matrix products in the frozen models' type, in FLOP/s.
        fuser_flop_rate: likewise in the fuser's type, in FLOP/s.
        bandwidth: of its memory, in bytes/s.
        launch: seconds that a kernel's launch takes when PyTorch runs operation by operation.
    """

    name: str = "H100 SXM"
    flop_rate: float = 989e12  # bfloat16
    fuser_flop_rate: float = 494.5e12  # TF32 for a float32 fuser
    bandwidth: float = 3.35e12
    launch: float = 5e-6


@dataclass(frozen=True)
class Efficiency:
    """How much of a data sheet's rates a program gets: assumptions, not measurements.

    Attributes:
        flop: share of the rate of matrix products.
        bandwidth: share of the memory's bandwidth.
    """

    flop: float = 0.5
    bandwidth: float = 0.7


def predicted_seconds(
    work: StepWork, moved: Mapping[str, int], accelerator: Accelerator, efficiency: Efficiency
) -> dict[str, float]:
    """Seconds of each part: by its operations or by its bytes, whichever takes longer.

    Args:
        work: the step's operations.
        moved: the step's bytes, as from `step_bytes`.
        accelerator: the GPU.
        efficiency: what is assumed.
    """
    flop, seconds = work.parts(), {}
    for part, size in moved.items():
        rate = accelerator.fuser_flop_rate if part.startswith("fuser") else accelerator.flop_rate
        arithmetic = flop.get(part, 0) / (rate * efficiency.flop)
        seconds[part] = max(arithmetic, size / (accelerator.bandwidth * efficiency.bandwidth))
    return seconds
