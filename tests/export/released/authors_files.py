"""Random fusers in the authors' layout, written out name by name, independently of the converter."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Heads = tuple[int, int]
"""KV heads and width of one head."""


def projector_state(
    receiver: Heads,
    sharer: Heads,
    hidden: int = 16,
    inner: int = 24,
    num_layers: int = 3,
    level: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A random state dict of one projector; `level` is that of their ablations."""
    out, read = receiver[0] * receiver[1], sharer[0] * sharer[1]
    state: dict[str, Tensor] = {}

    def matrix(name: str, rows: int, columns: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(rows, columns, dtype=dtype)
        if bias:
            state[f"{name}.bias"] = torch.randn(rows, dtype=dtype)

    def block(name: str, width: int) -> None:
        state[f"{name}.norm.weight"] = torch.randn(hidden, dtype=dtype)
        matrix(f"{name}.w1", width, hidden, bias=False)
        matrix(f"{name}.w2", hidden, width, bias=False)

    for side in ("key", "value"):
        matrix(f"{side}_in", hidden, read if level == 3 else read + out)
        block(f"{side}_mlp1.blocks.0", inner)
        if level in (0, 4):
            block(f"{side}_scalar_mlp2.blocks.0", hidden)
            matrix(f"{side}_scalar_head", receiver[0], hidden)
        for depth in range(num_layers - 2):
            block(f"{side}_proj_mlp2.blocks.{depth}", inner)
        matrix(f"{side}_proj_out", out, hidden)
        if level in (0, 1):
            state[f"{side}_gate_logit"] = torch.randn((), dtype=dtype)
    if level in (0, 1):
        state["gate_temperature"] = torch.tensor(0.25, dtype=dtype)
    return state


def write_released(
    folder: Path,
    receiver: Heads = (2, 8),
    sharer: Heads = (1, 6),
    layer_map: Mapping[int, int] | None = None,
    model: Mapping[str, Any] | None = None,
    **sizes: Any,
) -> Path:
    """A released directory with one random projector for each entry of `layer_map` (receiver to sharer layer)."""
    layer_map = {0: 1, 1: 2, 2: 3} if layer_map is None else layer_map
    final = folder / "final"
    final.mkdir(parents=True)
    layers = {}
    for index, (layer, source) in enumerate(layer_map.items()):
        layers[str(layer)] = [[source, index]]
        torch.save(projector_state(receiver, sharer, **sizes), final / f"projector_{index}.pt")
        described = projector_json(receiver, sharer, **sizes)
        (final / f"projector_{index}.json").write_text(json.dumps(described))
    (final / "projector_config.json").write_text(json.dumps({"0": {"1": layers}}))
    settings = {"base_model": "org/receiver", "teacher_model": "org/sharer", **(model or {})}
    (folder / "config.json").write_text(json.dumps({"model": settings, "training": {"seed": 42}}))
    return folder


def projector_json(
    receiver: Heads,
    sharer: Heads,
    hidden: int = 16,
    inner: int = 24,
    num_layers: int = 3,
    level: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """What `projector_{i}.json` says of such a projector."""
    arguments: dict[str, Any] = {
        "source_dim": sharer[1],
        "target_dim": receiver[1],
        "source_num_heads": sharer[0],
        "target_num_heads": receiver[0],
        "hidden_dim": hidden,
        "intermediate_dim": inner,
        "num_layers": num_layers,
        "dropout": 0.1,
        "initial_temperature": 1.0,
        "final_temperature": 0.001,
        "anneal_steps": 1929,
        "dtype": {"__type__": "torch.dtype", "value": str(dtype).removeprefix("torch.")},
    }
    if level == 0:
        return {"class": "C2CProjector", "init_args": arguments}
    return {"class": "AblationProjector", "init_args": {**arguments, "ablation_level": level}}


def same_released(first: Path, second: Path) -> None:
    """Assert that two `final/` folders hold the same bits, arguments and layer maps."""
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if name.endswith(".json"):
            assert json.loads((first / name).read_text()) == json.loads((second / name).read_text())
            continue
        mine, theirs = (torch.load(folder / name, weights_only=True) for folder in (first, second))
        assert mine.keys() == theirs.keys()
        for key, tensor in mine.items():
            assert tensor.dtype == theirs[key].dtype, key
            assert torch.equal(tensor, theirs[key]), key
