"""Kept rows on disk: written whole, read by other processes, and never half a row."""

from pathlib import Path
from unittest import mock

import pytest
import torch

from c2c_lightning.training.frozen_cache import disk_store
from c2c_lightning.training.frozen_cache.disk_store import DiskStore
from c2c_lightning.training.frozen_cache.prefill_store import KeptRow


def row(number: int, size: int = 4) -> KeptRow:
    return KeptRow(torch.arange(size, dtype=torch.int32), torch.full((size, 3), float(number)))


def test_rows_are_read_by_other_stores_once_they_are_written(tmp_path: Path) -> None:
    mine, other = DiskStore(tmp_path, 10**6), DiskStore(tmp_path, 10**6)
    mine.put("a", row(1))
    assert torch.equal(mine.get("a").entries, row(1).entries)
    assert other.get("a") is None
    mine.flush()
    assert torch.equal(other.get("a").entries, row(1).entries)
    assert torch.equal(DiskStore(tmp_path, 10**6).get("a").tokens, row(1).tokens)


def test_bfloat16_entries_come_back_as_they_are(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**6)
    kept = KeptRow(torch.arange(2, dtype=torch.int32), torch.randn(2, 3).bfloat16())
    store.put("a", kept)
    store.flush()
    found = store.get("a").entries
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, kept.entries)


def test_shards_are_written_at_their_size_and_the_limit_holds(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=2000, shard_bytes=200)
    for number in range(40):
        store.put(str(number), row(number))
    assert len(list(tmp_path.glob("rows-*"))) > 1
    assert store.num_bytes <= 2000 + 1000  # and the header of the last file
    assert store.get("0") is not None
    assert store.get("39") is None


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**6)
    store.put("a", row(1))
    with (
        mock.patch.object(disk_store.os, "replace", side_effect=OSError("disk full")),
        pytest.raises(OSError, match="full"),
    ):
        store.flush()
    assert list(tmp_path.iterdir()) == []
    assert store.get("a") is not None


def test_a_damaged_shard_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskStore(tmp_path, 10**6)
    store.put("a", row(1))
    store.flush()
    (shard,) = tmp_path.glob("rows-*")
    shard.write_bytes(shard.read_bytes()[:-5])
    assert DiskStore(tmp_path, 10**6).get("a") is None
    assert "is damaged" in caplog.text
