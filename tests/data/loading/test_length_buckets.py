import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.row_lengths import BatchLimits, Lengths


def long_tailed(rows: int, models: int = 2, seed: int = 0) -> Lengths:
    """Lengths as chats have them: the median short, a few a hundred times longer."""
    random = np.random.default_rng(seed)
    base = np.exp(random.normal(4.5, 0.9, rows))
    prompts = np.stack([base * factor for factor in np.linspace(1, 0.8, models)], 1)
    responses = np.exp(random.normal(3.5, 1.1, rows))
    return Lengths(prompts.astype(np.int64) + 1, responses.astype(np.int64) + 1)


def padded(batches: list[np.ndarray], lengths: Lengths) -> float:
    """Share of the tokens in batches that are padding."""
    return 1 - lengths.real_tokens / sum(lengths.take(batch).padded_tokens for batch in batches)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=60),
    st.one_of(st.none(), st.integers(1, 9)),
    st.one_of(st.none(), st.integers(1, 3000)),
)
def test_every_row_once_and_no_batch_too_large(
    rows: list[tuple[int, int, int]], size: int | None, tokens: int | None
) -> None:
    if size is None and tokens is None:
        return
    table = np.array(rows)
    lengths = Lengths(table[:, :2], table[:, 2])
    batches = cut_batches(np.arange(len(rows)), lengths, BatchLimits(size, tokens))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rows)))
    for batch in batches:
        if len(batch) > 1:
            assert size is None or len(batch) <= size
            assert tokens is None or lengths.take(batch).padded_tokens <= tokens
    if tokens is None and size is not None:
        assert len(batches) == -(-len(rows) // size)


@pytest.mark.parametrize("limits", [BatchLimits(4), BatchLimits(16), BatchLimits(None, 8192), BatchLimits(None, 16384)])
def test_little_is_padded(limits: BatchLimits) -> None:
    lengths = long_tailed(20_000)
    batches = cut_batches(np.random.default_rng(0).permutation(len(lengths)), lengths, limits)
    assert padded(batches, lengths) < 0.1


def test_token_budgets_are_used() -> None:
    lengths = long_tailed(20_000)
    batches = cut_batches(np.arange(len(lengths)), lengths, BatchLimits(None, 16384))
    fill = np.mean([lengths.take(batch).padded_tokens / 16384 for batch in batches])
    assert fill > 0.85
