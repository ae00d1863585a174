"""Training steps on kept caches equal steps that compute them, to the last bit in float32."""

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest
import torch

from c2c_lightning.data.mismatch import swap_sharers
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.training.frozen_cache.common_prefix import CommonPrefix
from c2c_lightning.training.frozen_cache.kept_rows import kept_rows
from tests.training.frozen_cache.kept import BATCHES, batch, build, keep, losses

MODES = ["prefill", "prompt", "decode"]
CASES = {
    "one sharer": {},
    "several sharers": {"sharers": ("llama", "gemma3")},
    "parallel order, sliding windows": {
        "sharers": ("gemma3", "llama"),
        "receiver": "gemma3",
        "sharer_order": "parallel",
    },
    "two turns": {},
    "two turns at once": {"span_order": "one_pass"},
    "hidden states, few layers": {"sharer_input": "hidden", "layer_map": [[None, 1, None, 0]]},
}
RUNS = [
    *((mode, "one sharer") for mode in MODES),
    ("decode", "several sharers"),
    ("prompt", "parallel order, sliding windows"),
    ("prefill", "two turns"),
    ("prefill", "two turns at once"),
    ("prompt", "hidden states, few layers"),
]
ROWS, DISTINCT = sum(map(len, BATCHES)), 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products of several threads are summed in another order for each number of tokens."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("mode", "case"), RUNS)
def test_kept_entries_are_those_that_are_computed_again(mode: str, case: str) -> None:
    model = build(mode, **CASES[case])
    batches = [batch(model.encoder, rows, turns=2 if "turns" in case else 1) for rows in BATCHES]
    ordinary = losses(model, batches)
    keep(model, max_bytes=0)
    computed = losses(model, batches)
    prefills = keep(model)
    kept = losses(model, batches)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(kept, computed, strict=True))
    torch.testing.assert_close(kept, ordinary, rtol=1e-4, atol=2e-5)
    counts = [(m.count.new_rows, m.count.reused_rows) for m in prefills.models]
    assert counts == [(DISTINCT, ROWS - DISTINCT)] * len(prefills.models)


@pytest.mark.parametrize("mode", ["prefill", "prompt"])
def test_steps_are_those_without_kept_caches_bit_for_bit(mode: str) -> None:
    # Widths of whole vectors, and passes without padding or shared prefixes, as kept rows are computed: then nothing is
    # rounded otherwise.
    model = build(mode, sizes={"intermediate_size": 64})
    batches = [batch(model.encoder, rows) for rows in BATCHES if len(rows) > 1]
    with (
        mock.patch.object(FrozenLM, "gains_by_ragged", lambda lm, mask: lm.supports_ragged),
        mock.patch("c2c_lightning.model.shared_prefix.shared_prefix_length", return_value=0),
    ):
        expected = losses(model, batches)
        keep(model)
        found = losses(model, batches) + losses(model, batches)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected * 2, strict=True))


@torch.no_grad()
def test_mismatched_rows_and_the_receiver_alone_use_what_is_kept() -> None:
    model = build("prompt").eval()
    rows = batch(model.encoder, [0, 1, 2])
    other = batch(model.encoder, [1, 2, 0])
    rows.prompt = swap_sharers(rows.prompt, other.prompt)
    expected = model.batch_loss(rows), model.batch_loss(rows, active_sharers=())
    prefills = keep(model)
    for _ in range(2):
        model.batch_loss(other)
        torch.testing.assert_close((model.batch_loss(rows), model.batch_loss(rows, active_sharers=())), expected)
    assert [m.count.new_rows for m in prefills.models] == [3, 3]


def test_only_rows_of_validations_are_kept_where_training_rows_come_once() -> None:
    model = build()
    prefills = keep(model, keeps_training_rows=False)
    rows = batch(model.encoder, [0, 1])
    model.batch_loss(rows)
    assert [m.store.num_bytes for m in prefills.models] == [0, 0]
    with torch.no_grad():
        model.batch_loss(rows)
    assert all(m.store.num_bytes for m in prefills.models)


def test_rows_beyond_the_limit_are_computed_again() -> None:
    model = build()
    batches = [batch(model.encoder, rows) for rows in BATCHES]
    keep(model, max_bytes=0)
    expected = losses(model, batches)
    row = keep(model)
    losses(model, batches[:1])
    limit = int(row.models[1].store.num_bytes * 0.6)
    some = keep(model, max_bytes=limit)
    assert all(torch.equal(*pair) for pair in zip(losses(model, batches), expected, strict=True))
    receiver = some.models[1]
    assert 0 < receiver.store.num_bytes <= limit
    assert DISTINCT < receiver.count.new_rows < ROWS


def test_only_read_layers_and_tokens_of_a_sharer_are_kept() -> None:
    model = build(layer_map=[[None, 1, None, 1]])
    prefills = keep(model)
    rows = batch(model.encoder, [2])
    model.batch_loss(rows)
    sharer, geometry = prefills.models[0], model.sharers[0].geometry.layers[1]
    read = int((rows.prompt.sharers[0].index >= 0).sum())
    values = read * geometry.kv_heads * (geometry.key_dim + geometry.value_dim)
    assert sharer.store.num_bytes == 4 * values + 4 * read
    assert read < rows.prompt.sharers[0].input_ids.shape[1] / 3


def test_a_text_that_rows_begin_with_is_computed_once_and_entries_depend_on_no_other_row() -> None:
    model = build("prompt")
    batches = [batch(model.encoder, rows) for rows in BATCHES]
    expected = losses(model, batches)
    sampled = kept_rows(model, batch(model.encoder, [0, 1, 2, 3, 4]))[0][0]
    prefix = CommonPrefix.of(model.sharers[0], sampled, model.fuser.sharers[0].num_sharer_layers)
    assert prefix is not None
    found = []
    for filling in (batches, batches[::-1]):
        keep(model).models[0].prefix = prefix
        with mock.patch.object(model.sharers[0], "prefill", side_effect=model.sharers[0].prefill) as prefill:
            losses(model, filling)
        longest = max(map(len, sampled)) - prefix.inputs.shape[1]
        assert all(call.args[0].shape[1] <= longest for call in prefill.call_args_list[1:])
        found.append(losses(model, batches))
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=2e-5)
    assert all(torch.equal(mine, other) for mine, other in zip(*found, strict=True))


def test_rows_after_a_common_text_are_one_pass_in_half_precision() -> None:
    model = build("prompt")
    for lm in (model.receiver, *model.sharers):
        lm.model.bfloat16()
    rows = batch(model.encoder, [0, 1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        expected = losses(model, [rows])
        sampled = kept_rows(model, rows)[0][0]
        prefix = CommonPrefix.of(model.sharers[0], sampled, model.fuser.sharers[0].num_sharer_layers)
        keep(model).models[0].prefix = prefix
        with mock.patch.object(model.sharers[0], "prefill", side_effect=model.sharers[0].prefill) as prefill:
            found = losses(model, [rows])
    assert prefix is not None
    assert [len(call.args[0]) for call in prefill.call_args_list] == [1, 4]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_rows_with_little_in_common_have_no_prefix() -> None:
    model = build()
    one, other = kept_rows(model, batch(model.encoder, [0, 1]))[0][0]
    changed = replace(other, inputs=other.inputs.clone())
    changed.inputs[0, 4] += 1
    assert CommonPrefix.of(model.sharers[0], [one, changed], 2) is None
