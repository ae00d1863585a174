"""Random C2C-C fusers in the authors' layout: their class rebuilt from plain layers, so that torch gives the names."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.export.released.authors_files import Heads

# The authors' recipe, small, and what their trainer adds.
RECIPE: dict[str, Any] = {
    "hidden_dim": 12,
    "weight_hidden_dim": 10,
    "num_layers": 3,
    "dropout": 0.1,
    "activation": "gelu",
    "use_layer_norm": True,
    "use_residual": True,
    "use_swiglu": True,
    "use_concat": True,
    "gate_granularity": "scalar",
    "gate_depends_on_input": False,
    "gate_input_features": "target_key",
    "gate_init_value": 0.0,
    "weight_granularity": "head_merged",
    "weight_depends_on_input": True,
    "weight_input_features": "target_projected_key",
    "weight_init_value": 0.0,
    "use_gumbel": True,
    "initial_temperature": 1.0,
    "final_temperature": 0.001,
    "preserve_target_weight": False,
    "add_self": True,
    "anneal_steps": 112,
    "scalar_temperature": 1.0,
    "max_sequence_length": 8192,
}


class Gated(nn.Module):
    """Two maps; the names are theirs."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(in_dim, out_dim), nn.Linear(in_dim, out_dim)


class FlatMLP(nn.Module):
    """Their MLP is one flat list of layers, in which norms, activations and dropouts are entries too."""

    def __init__(self, widths: list[int], norm: bool, swiglu: bool, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (in_dim, out_dim) in enumerate(pairwise(widths)):
            if i == len(widths) - 2:
                layers.append(nn.Linear(in_dim, out_dim))
                continue
            layers.append(Gated(in_dim, out_dim) if swiglu else nn.Linear(in_dim, out_dim))
            layers += [nn.LayerNorm(out_dim)] if norm else []
            layers += [] if swiglu else [nn.GELU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.ModuleList(layers)


class Released(nn.Module):
    """One projector of C2C-C: its tensors and their names."""

    def __init__(self, receiver: Heads, sharer: Heads, **arguments: Any) -> None:
        super().__init__()
        a, out, read = {**RECIPE, **arguments}, receiver[0] * receiver[1], sharer[0] * sharer[1]
        self.register_buffer("gate_temperature", torch.tensor(0.25))
        widths = [read, *[a["hidden_dim"]] * (a["num_layers"] - 1), out]
        form = (a["use_layer_norm"], a["use_swiglu"], a["dropout"])
        self.key_projection, self.value_projection = FlatMLP(widths, *form), FlatMLP(widths, *form)
        self.gate_logit = nn.Parameter(torch.zeros(()))
        if a["use_concat"]:
            self.key_combiner, self.value_combiner = nn.Linear(2 * out, out), nn.Linear(2 * out, out)
        if not a["weight_depends_on_input"]:
            self.key_weight, self.value_weight = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
            return
        parts = (
            4 if "both" in (f := a["weight_input_features"]) and "projected" in f else 1 + (len(f) > 12 or f == "both")
        )
        per_head = a["weight_granularity"] in ("head", "value")
        width, num = a["weight_hidden_dim"], {"head_merged": receiver[0], "value": receiver[1]}
        self.weight_hidden = FlatMLP(
            [parts * receiver[1] * (1 if per_head else receiver[0]), width, width], True, False, 0.1
        )
        self.key_weight_head = nn.Linear(width, num.get(a["weight_granularity"], 1))
        self.value_weight_head = nn.Linear(width, num.get(a["weight_granularity"], 1))


def write_complex(
    folder: Path,
    receiver: Heads = (2, 8),
    sharer: Heads = (1, 6),
    layer_map: Mapping[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Path:
    """A released directory with one random projector for each entry of `layer_map` (receiver to sharer layer)."""
    layer_map = {0: 1, 1: 2, 2: 3} if layer_map is None else layer_map
    final = folder / "final"
    final.mkdir(parents=True)
    for index in range(len(layer_map)):
        state = Released(receiver, sharer, **arguments).to(dtype).state_dict()
        state = {n: t if n == "gate_temperature" else torch.randn_like(t) for n, t in state.items()}
        # Every second layer is closed.
        state["gate_logit"] = state["gate_logit"].abs() * (1 if index % 2 == 0 else -1)
        torch.save(state, final / f"projector_{index}.pt")
        shape = {"source_dim": sharer[1], "target_dim": receiver[1]}
        shape |= {"source_num_heads": sharer[0], "target_num_heads": receiver[0]}
        described = {"dtype": {"__type__": "torch.dtype", "value": str(dtype).removeprefix("torch.")}}
        init_args = {**shape, **RECIPE, **arguments, **described}
        path = final / f"projector_{index}.json"
        path.write_text(json.dumps({"class": "AllInOneProjector", "init_args": init_args}))
    layers = {str(layer): [[source, index]] for index, (layer, source) in enumerate(layer_map.items())}
    (final / "projector_config.json").write_text(json.dumps({"0": {"1": layers}}))
    models = {"base_model": "org/receiver", "teacher_model": "org/sharer"}
    (folder / "config.json").write_text(json.dumps({"model": models}))
    return folder
