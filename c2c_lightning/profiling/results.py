"""Results as a table, and the environment they were measured in."""

import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from rich.table import Table


def environment(device: torch.device) -> dict[str, Any]:
    """Hardware and library versions that the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "num_threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def to_table(name: str, result: Mapping[str, Any]) -> Table:
    """One line for each number."""
    table = Table(title=name, title_justify="left", show_header=False)
    for key, value in _lines(result):
        table.add_row(key, value)
    return table


def _lines(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        else:
            yield f"{prefix}{key}", str(value)
