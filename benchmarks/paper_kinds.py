"""The fuser kinds at the paper's sizes (Qwen3-0.6B from Qwen2.5-0.5B): parameters, FLOP, and predicted times of a GPU.

    python -m benchmarks.paper_kinds [--output FILE]

No model is built. Times are PREDICTED, not measured, by the roofline model of `benchmarks.memory_traffic`: an H100 at
half of its rate of products and 0.7 of its bandwidth, without launches. A training step has 32 examples of 256 prompt
and 128 response tokens; prefill is that of one prompt of 256 tokens, over both models' own prefills.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from benchmarks.fuser_kinds import PAPER, paper_flop, paper_parameters
from benchmarks.memory_traffic import FUSER_BYTES, Accelerator, Efficiency, lm_bytes, predicted_seconds, step_bytes
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.fusion_modes import MODES
from c2c_lightning.profiling.flops import Sample, fuse, prefill, training_step
from c2c_lightning.profiling.shapes import FuserShape, LMShape, PairShape

SIZES = Path(__file__).parents[1] / "configs" / "bench" / "pair" / "paper.yaml"
PROMPT, RESPONSE, BATCH, BFLOAT16 = 256, 128, 32, 2
RIDGE = {"num_sources": 1, "trainable": True}

KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "no_weights": {"kind": "no_weights"},
    "no_gates": {"kind": "no_gates"},
    "fuse": {"kind": "fuse"},
    "project": {"kind": "project"},
    "c2c_c": {"kind": "c2c_c"},
    "low_rank, rank 256": {"kind": "low_rank", "options": {"rank": 256}},
    "low_rank, rank 128": {"kind": "low_rank"},
    "low_rank, rank 64": {"kind": "low_rank", "options": {"rank": 64}},
    "low_rank, rank 128, hidden states": {"kind": "low_rank", "sharer_input": "hidden"},
    "memory, width 128": {"kind": "memory", "options": {"width": 128}},
    "memory, width 64": {"kind": "memory"},
    "ridge, 3 sources": {"kind": "ridge", "options": {"trainable": True}},
    "ridge, 1 source": {"kind": "ridge", "options": RIDGE},
    "ridge, 1 source, replace": {"kind": "ridge", "options": RIDGE, "fusion_mode": "replace"},
    "ridge, 1 source, rank 64, replace": {
        "kind": "ridge",
        "options": {**RIDGE, "map_rank": 64},
        "fusion_mode": "replace",
    },
    "ridge_start of low_rank, rank 128": {"kind": "ridge_start", "options": {"num_sources": 1}},
}
"""The fuser's choices of each row. `rotary_free` around a kind has the numbers of that kind."""


def main(args: Sequence[str] | None = None) -> int:
    """Print the table; `args` default to those of the process. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(args)
    rows = [row(name, choices) for name, choices in KINDS.items()]
    _show(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def row(name: str, choices: dict[str, Any]) -> dict[str, Any]:
    """Sizes, operations and predicted seconds of one kind."""
    config = FuserConfig(**choices)
    pair = paper_pair(config)
    samples = [Sample.shared(PROMPT, RESPONSE)] * BATCH
    work, moved = training_step(pair, samples), step_bytes(pair, samples, BFLOAT16)
    seconds = predicted_seconds(work, moved, Accelerator(), Efficiency())
    parts = prompt_seconds(pair)
    alone = parts["receiver_prefill"] + parts["sharer_prefill"]
    return {
        "kind": name,
        "parameters": paper_parameters(choices),
        "mflop_per_token": paper_flop(choices) / 1e6,
        "step_tflop": work.total / 1e12,
        "predicted_step_seconds": sum(seconds.values()),
        "predicted_fusion_seconds": parts["fuser"],
        "predicted_prefill_ratio": (sum(parts.values()) - pair.replaces_receiver * parts["receiver_prefill"]) / alone,
    }


def paper_pair(config: FuserConfig) -> PairShape:
    """The shapes of the paper's models with a fuser between them."""
    sizes = yaml.safe_load(SIZES.read_text(encoding="utf-8"))["init_args"]
    receiver, sharer = (LMShape.of(AutoConfig.for_model(**lm)) for lm in (sizes["receiver"], *sizes["sharers"]))
    fusers = tuple(FuserShape.of(PAPER[0], [PAPER[1]], config))
    return PairShape(receiver, (sharer,), fusers, MODES[config.fusion_mode].replaces_receiver)


def prompt_seconds(pair: PairShape) -> dict[str, float]:
    """Predicted seconds of the fuser and of both prefills for one prompt, without launches."""
    card, share, shape = Accelerator(), Efficiency(), pair.fusers[0]
    flop, moved = card.flop_rate * share.flop, card.bandwidth * share.bandwidth
    traffic = FUSER_BYTES * (shape.first_weights + shape.other_weights + shape.widths * PROMPT)
    sides = {"receiver_prefill": (pair.receiver, None), "sharer_prefill": (pair.sharers[0], shape.sharer_layers)}
    seconds = {"fuser": max(fuse(shape, PROMPT) / (card.fuser_flop_rate * share.flop), traffic / moved)}
    for name, (lm, layers) in sides.items():
        size = lm_bytes(lm, PROMPT, 0, lm.num_layers if layers is None else layers, BFLOAT16)
        seconds[name] = max(prefill(lm, PROMPT, num_layers=layers) / flop, size / moved)
    return seconds


def _show(rows: Sequence[dict[str, Any]]) -> None:
    columns = ("kind", "parameters", "of `c2c`", "MiB, float32", "MFLOP a token", "step, TFLOP", "of `c2c`")
    predicted = ("PREDICTED step, ms", "PREDICTED fusion, µs", "PREDICTED prefill / both prefills")
    table, first = Table(*columns, *predicted, box=box.MARKDOWN), rows[0]
    for row in rows:
        table.add_row(
            row["kind"],
            f"{row['parameters']:,}",
            f"{row['parameters'] / first['parameters']:.1%}",
            f"{row['parameters'] * FUSER_BYTES / 2**20:,.0f}",
            f"{row['mflop_per_token']:.1f}",
            f"{row['step_tflop']:.1f}",
            f"{row['step_tflop'] / first['step_tflop']:.2f}",
            f"{row['predicted_step_seconds'] * 1e3:.0f}",
            f"{row['predicted_fusion_seconds'] * 1e6:.0f}",
            f"{row['predicted_prefill_ratio']:.2f}",
        )
    Console(width=220 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    with torch.device("meta"):
        sys.exit(main())
