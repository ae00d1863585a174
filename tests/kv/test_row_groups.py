"""Groups of rows of like length."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.kv.row_groups import left_padded_lengths, row_groups, spread


def _cost(groups: list[list[int]], lengths: list[int], pass_cost: int) -> int:
    return sum(len(rows) * max(lengths[row] for row in rows) + pass_cost for rows in groups)


def _partitions(rows: list[int]) -> list[list[list[int]]]:
    if not rows:
        return [[]]
    first, rest = rows[0], rows[1:]
    found = []
    for partition in _partitions(rest):
        found.append([[first], *partition])
        found += [[*partition[:n], [first, *group], *partition[n + 1 :]] for n, group in enumerate(partition)]
    return found


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 40))
def test_no_other_way_to_group_costs_less(lengths: list[int], pass_cost: int) -> None:
    groups = row_groups(lengths, pass_cost)
    assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
    best = min(_cost(partition, lengths, pass_cost) for partition in _partitions(list(range(len(lengths)))))
    assert _cost(groups, lengths, pass_cost) == best


def test_rows_of_one_length_stay_together_and_empty_ones_are_left_out() -> None:
    assert row_groups([50, 50, 50]) == [[0, 1, 2]]
    assert row_groups([0, 50, 0]) == [[1]]
    assert row_groups([400, 10, 12]) == [[1, 2], [0]]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_groups_are_put_back_in_their_rows(order: tuple[int, ...]) -> None:
    lengths = [(5, 2, 3)[n] for n in order]
    whole = torch.randn(3, 2, 5, 4)
    mask = torch.stack([torch.arange(5) >= 5 - length for length in lengths])
    whole = whole * mask[:, None, :, None]
    groups = row_groups(lengths, 0)
    parts = [
        [LayerKV(whole[rows][:, :, 5 - lengths[rows[-1]] :], whole[rows][:, :, 5 - lengths[rows[-1]] :])]
        for rows in groups
    ]
    assert torch.equal(spread(groups, parts, 3, 5)[0].keys, whole)
    assert left_padded_lengths(mask) == lengths


def test_holes_count_as_tokens() -> None:
    assert left_padded_lengths(torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])) == [3, 0, 4]
