"""Parameters of a hub of the paper's models, against a fuser for each direction: `python -m benchmarks.hub_sizes`.

No language model is built, and nothing is trained.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import all_directions
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.hub_fuser import HubFuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry

MODELS: dict[str, KVGeometry] = {
    "qwen3_0_6b": KVGeometry((LayerGeometry(8, 128, 128),) * 28),
    "qwen2_5_0_5b": KVGeometry((LayerGeometry(2, 64, 64),) * 24),
    "llama3_2_1b": KVGeometry((LayerGeometry(8, 64, 64),) * 16),
    "gemma3_1b": KVGeometry((LayerGeometry(1, 256, 256),) * 26),
}
"""Cache shapes of Qwen3-0.6B, Qwen2.5-0.5B, Llama-3.2-1B and Gemma3-1B."""

HUBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "c2c": ({}, {"latent_layers": 28, "latent_dim": 512}),
    "low_rank": ({"kind": "low_rank"}, {"kind": "low_rank", "latent_layers": 28, "latent_dim": 128}),
}
"""For each kind of the decoders the choices of the fuser of a pair, and the options of the hub."""


def main() -> int:
    """Print the table. Returns the exit code."""
    table = Table("decoders", "models", "directions", "fusers", "hub", "hub / fusers", box=box.MARKDOWN)
    for kind, (of_pair, options) in HUBS.items():
        for count in range(2, len(MODELS) + 1):
            fusers, hub = sizes(dict(list(MODELS.items())[:count]), of_pair, options)
            directions = count * (count - 1)
            table.add_row(kind, str(count), str(directions), f"{fusers:,}", f"{hub:,}", f"{hub / fusers:.0%}")
    Console().print(table)
    return 0


def sizes(models: Mapping[str, KVGeometry], of_pair: dict[str, Any], options: dict[str, Any]) -> tuple[int, int]:
    """Parameters of a fuser for every direction, and of a hub.

    Args:
        models: the models by name.
        of_pair: choices of the fuser of a pair.
        options: options of the kind `hub`.
    """
    directions = all_directions(list(models))
    pair = FuserConfig(layer_alignment="depth", **of_pair)
    config = FuserConfig(kind="hub", layer_alignment="depth", options=options)
    with torch.device("meta"):
        fusers = [Fuser(models[one.receiver], [models[one.sharer]], pair) for one in directions]
        hub = HubFuser(models, config, directions)
    return sum(p.numel() for fuser in fusers for p in fuser.parameters()), sum(hub.num_parameters().values())


if __name__ == "__main__":
    sys.exit(main())
