"""The times that the FLOP and byte model predicts, for comparison with the measured ones."""

from dataclasses import replace

import torch

from benchmarks.gpu_day.day import Day
from benchmarks.memory_traffic import FUSER_BYTES, Accelerator, Efficiency, lm_bytes, predicted_seconds, step_bytes
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.flops import Sample, fuse, prefill, training_step
from c2c_lightning.profiling.shapes import PairShape

H100 = Accelerator()
ACCELERATORS = {
    "H100": H100,
    "H200": replace(H100, name="H200", bandwidth=4.8e12),
    "A100": Accelerator("A100", flop_rate=312e12, fuser_flop_rate=156e12, bandwidth=2.0e12),
}
FP32_RATES = {"H100": 67e12, "H200": 67e12, "A100": 19.5e12}
"""Rates of float32 products without TF32, in FLOP/s."""

EFFICIENCY = Efficiency()


def accelerator(day: Day, tf32: bool = True) -> Accelerator:
    """The card by its data sheet; an H100 where it is unknown, so that a table can be made.

    Args:
        day: the run.
        tf32: whether float32 products may use TF32.
    """
    name = torch.cuda.get_device_name(0) if day.is_cuda else ""
    key = next((known for known in ACCELERATORS if known in name), "H100")
    return ACCELERATORS[key] if tf32 else replace(ACCELERATORS[key], fuser_flop_rate=FP32_RATES[key])


def step_seconds(day: Day, model: C2CModel, samples: list[Sample], tf32: bool) -> dict[str, float]:
    """Predicted seconds of a training step on one batch, by part and in total, without launches."""
    pair, width = PairShape.of(model), next(model.receiver.model.parameters()).element_size()
    card = accelerator(day, tf32)
    parts = predicted_seconds(training_step(pair, samples), step_bytes(pair, samples, width), card, EFFICIENCY)
    return {**parts, "total": sum(parts.values())}


def prompt_seconds(day: Day, model: C2CModel, tokens: int, tf32: bool) -> dict[str, float]:
    """Predicted seconds of the fuser and of both prefills for one prompt, without launches."""
    pair, card = PairShape.of(model), accelerator(day, tf32)
    width = next(model.receiver.model.parameters()).element_size()
    flop, moved = card.flop_rate * EFFICIENCY.flop, card.bandwidth * EFFICIENCY.bandwidth
    shape, lm, sharer = pair.fusers[0], pair.receiver, pair.sharers[0]
    traffic = FUSER_BYTES * (shape.first_weights + shape.other_weights + shape.widths * tokens)
    layers = shape.sharer_layers
    return {
        "fuser": max(fuse(shape, tokens) / (card.fuser_flop_rate * EFFICIENCY.flop), traffic / moved),
        "receiver_prefill": max(prefill(lm, tokens) / flop, lm_bytes(lm, tokens, 0, lm.num_layers, width) / moved),
        "sharer_prefill": max(
            prefill(sharer, tokens, 0, layers) / flop, lm_bytes(sharer, tokens, 0, layers, width) / moved
        ),
    }
