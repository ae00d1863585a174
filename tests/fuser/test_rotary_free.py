"""Fusion on keys without rotary position: against a plain twin, and the values it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.errors import FuserConfigError, FuserInputError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.rotary_tables import RotaryTables
from c2c_lightning.kv.rotary import LayerRotary
from tests.fuser.kinds import RECEIVER, SHARER, STEP, OneToken, check_finite_differences, check_twin, entries_of, make
from tests.fuser.test_low_rank import slow_residual as slow_low_rank

MINE = [LayerRotary((1.0, 0.1)), LayerRotary(), LayerRotary((0.5, 0.02))]
THEIRS = [LayerRotary((0.3 + n, 0.03), interleaved=True) for n in range(4)]
PLACED = FusionStep(
    1, 4, (replace(STEP.fused_tokens[0], position=torch.tensor([7, 9, 2]), source_position=torch.tensor([40, 3, 11])),)
)
"""The fused tokens of `STEP`, at other positions than their columns."""


def rotary_free(kind: str = "low_rank", **options: Any) -> Fuser:
    given = {"rank": 4, **options} if kind == "low_rank" else options
    fuser = make(kind="rotary_free", options={"kind": kind, **given})
    fuser.bind_rotary(0, MINE, THEIRS)
    return fuser


def turned(keys: Tensor, table: LayerRotary, position: int) -> Tensor:
    """Keys (heads, width) of one token rotated by complex numbers."""
    pairs, result = len(table.frequencies), keys.clone()
    for n, frequency in enumerate(table.frequencies):
        i, j = (2 * n, 2 * n + 1) if table.interleaved else (n, n + pairs)
        z = torch.complex(keys[:, i], keys[:, j]) * torch.polar(torch.ones(()), torch.tensor(position * frequency))
        result[:, i], result[:, j] = z.real, z.imag
    return result


def test_it_is_the_inner_kind_between_rotations() -> None:
    fuser, tokens = rotary_free(), PLACED.fused_tokens[0]
    calls = iter([(token, layer) for layer in range(3) for token in range(3)])
    assert tokens.position is not None
    assert tokens.source_position is not None

    def slow_residual(part: Any, place: int, receiver: OneToken, sharer: OneToken) -> OneToken:
        token, layer = next(calls)
        mine, at = MINE[layer], int(tokens.position[token])
        theirs, source_at = THEIRS[part.sharer_layers[place]], int(tokens.source_position[token])
        free = (turned(receiver[0], mine, -at), receiver[1]), (turned(sharer[0], theirs, -source_at), sharer[1])
        keys, values = slow_low_rank(part.inner, place, *free)
        return turned(keys, mine, at), values

    check_twin(fuser, slow_residual, PLACED)


def test_gradients_are_finite_differences() -> None:
    check_finite_differences(rotary_free(), PLACED)


def test_parameters_and_gates_are_those_of_the_inner_kind() -> None:
    fuser, plain = rotary_free("c2c"), make()
    assert [p.shape for p in fuser.parameters()] == [p.shape for p in plain.parameters()]
    assert torch.equal(fuser.gate_logits(), plain.gate_logits())
    ours, theirs = fuser.parameter_roles(), plain.parameter_roles()
    assert [len(x) for x in vars(ours).values()] == [len(x) for x in vars(theirs).values()]


def test_shared_settings_reach_the_inner_kind() -> None:
    ((_, settings),) = FuserConfig(kind="rotary_free", hidden_dim=12, options={"num_layers": 4}).kinds(1)
    assert (settings.kind, settings.settings.hidden_dim, settings.settings.num_layers) == ("c2c", 12, 4)


def test_tables_stay_float32_in_half_precision() -> None:
    fuser = rotary_free().bfloat16()
    tables = fuser.sharers[0].groups[0].receiver_rotary
    assert isinstance(tables, RotaryTables)
    assert tables.frequencies.dtype == torch.float32
    assert not [name for name in fuser.state_dict() if "rotary" in name], "tables belong to the language models"


def test_position_free_keys_do_not_depend_on_the_position() -> None:
    tables = RotaryTables(MINE)
    keys = torch.randn(3, 1, 2, 4, dtype=torch.float64).expand(3, 5, 2, 4)
    position = torch.tensor([0, 1, 77, 4000, 100_000])
    torch.testing.assert_close(tables.undo(tables.redo(keys, position), position), keys, atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "rotary_free"}, "cannot contain itself"),
        ({"kind": "lowrank"}, r"kind is 'lowrank', but must be one of .*Did you mean 'low_rank'\?"),
        ({"kind": "low_rank", "rnk": 4}, r"unknown 'low_rank' settings \['rnk'\]"),
    ],
    ids=str,
)
def test_impossible_inner_kinds_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        FuserConfig(kind="rotary_free", options=options)


def test_missing_tables_and_positions_are_named() -> None:
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    with pytest.raises(FuserInputError, match="needs the position ids"):
        rotary_free()(mine, [theirs], STEP)
    unbound = make(kind="rotary_free", options={"kind": "low_rank", "rank": 4})
    with pytest.raises(FuserInputError, match="rotary tables"):
        unbound(mine, [theirs], PLACED)


def test_layers_with_other_rotated_dimensions_are_refused() -> None:
    with pytest.raises(FuserConfigError, match="rotary embeddings over different dimensions"):
        RotaryTables([LayerRotary((1.0,)), LayerRotary((1.0, 0.5))])
