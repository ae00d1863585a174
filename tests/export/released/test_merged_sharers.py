"""Separately trained released fusers of different sizes as one fuser with several sharers."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.errors import FuserConfigError, FuserFormatError
from c2c_lightning.export import SavedFuser, convert_released, load_fuser, to_released
from c2c_lightning.kv.geometry import KVGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack
from tests.export.released.authors_files import same_released, write_released
from tests.fuser.c2c_twin import released_residual

TOKENS = 3
FUSERS: list[dict[str, Any]] = [
    {"sharer": (1, 6), "hidden": 24, "inner": 24, "num_layers": 3},
    {"sharer": (2, 5), "hidden": 16, "inner": 24, "num_layers": 4, "layer_map": {0: 0, 1: 2, 2: 1}},
]


def merged(tmp_path: Path, numbers: tuple[int, ...] = (0, 1)) -> tuple[SavedFuser, list[Path]]:
    torch.manual_seed(0)
    sources = [write_released(tmp_path / f"theirs_{n}", **FUSERS[n]) for n in numbers]
    names = [f"sharer_{n}" for n in numbers]
    return load_fuser(convert_released(sources, tmp_path / "ours", receiver="r", sharers=names)), sources


def cache(geometry: KVGeometry, seed: int) -> LayerStack:
    g = torch.Generator().manual_seed(seed)

    def entries(heads: int, dim: int) -> Tensor:
        return torch.randn(2, heads, TOKENS, dim, generator=g, dtype=torch.double)

    return [LayerKV(entries(x.kv_heads, x.key_dim), entries(x.kv_heads, x.value_dim)) for x in geometry.layers]


def released_fusion(
    saved: SavedFuser, sources: list[Path], mine: LayerStack, theirs: list[LayerStack | None]
) -> LayerStack:
    """The released fusion of the active sharers, layer by layer from the authors' files."""
    is_parallel, result = saved.description.config.sharer_order == "parallel", list(mine)
    for source, kv, layer_map in zip(sources, theirs, saved.description.layer_maps, strict=True):
        if kv is None:
            continue
        for n, m in enumerate(layer_map):
            assert m is not None
            state = torch.load(source / "final" / f"projector_{n}.pt", weights_only=True)
            state = {name: tensor.double() for name, tensor in state.items()}
            added = released_residual(state, mine[n] if is_parallel else result[n], kv[m])
            result[n] = LayerKV(result[n].keys + added.keys, result[n].values + added.values)
    return result


@pytest.mark.parametrize("order", ["sequential", "parallel"])
@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)], ids=str)
def test_merged_fuser_gives_the_released_numbers_for_every_subset(
    tmp_path: Path, numbers: tuple[int, ...], order: Any
) -> None:
    saved, sources = merged(tmp_path, numbers)
    config = replace(saved.description.config, sharer_order=order)
    saved = replace(saved, description=replace(saved.description, config=config))
    saved.fuser.double().config = config
    mine = cache(saved.description.receiver.geometry, 1)
    caches = [cache(geometry, 2 + n) for n, geometry in enumerate(saved.description.geometries)]
    tokens = FusedTokens.all_tokens(2, TOKENS, torch.device("cpu"))
    step = FusionStep(0, TOKENS, (tokens, tokens))
    for active in (set(), *(set(s) for size in (1, 2) for s in combinations((0, 1), size))):
        theirs = [kv if n in active else None for n, kv in enumerate(caches)]
        fused, split = saved.fuser(mine, theirs, step), saved.fuser.split()
        for n, expected in enumerate(released_fusion(saved, sources, mine, theirs)):
            torch.testing.assert_close(fused[n].keys, expected.keys, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(fused[n].values, expected.values, rtol=1e-9, atol=1e-9)
            newly = split.fuse_new(n, mine[n], [None if kv is None else kv for kv in theirs])
            torch.testing.assert_close(newly.keys, expected.keys, rtol=1e-9, atol=1e-9)


def test_merged_fuser_converts_back(tmp_path: Path) -> None:
    _, sources = merged(tmp_path)
    back = to_released(tmp_path / "ours", tmp_path / "back")
    for n, source in enumerate(sources):
        same_released(source / "final", back / f"sharer_{n}" / "final")


def test_sizes_are_recorded_per_sharer(tmp_path: Path) -> None:
    saved, _ = merged(tmp_path)
    settings = [settings for _, settings in saved.description.config.kinds(2)]
    assert [(s.hidden_dim, s.intermediate_dim, s.num_layers) for s in settings] == [(24, 24, 3), (16, 24, 4)]
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "hidden_dim 24, intermediate_dim 24, num_layers 3" in card


def test_sharer_kinds_for_another_number_of_sharers_are_refused(tmp_path: Path) -> None:
    saved, _ = merged(tmp_path)
    with pytest.raises(FuserConfigError, match="2 entries for 3 sharers"):
        saved.description.config.kinds(3)


def test_another_fuser_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    _, sources = merged(tmp_path)
    convert_released(sources, tmp_path / "ours", "r", ["sharer_0", "sharer_1"])
    with pytest.raises(FuserFormatError, match=r"holds another fuser already.*--overwrite"):
        convert_released(sources[:1], tmp_path / "ours", "r", ["sharer_0"])
    convert_released(sources[:1], tmp_path / "ours", "r", ["sharer_0"], overwrite=True)
    assert len(load_fuser(tmp_path / "ours").description.sharers) == 1
