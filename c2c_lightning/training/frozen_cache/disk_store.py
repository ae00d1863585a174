"""Kept rows on disk: safetensors shards that are written whole, read by any process, and found again by later runs."""

import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from c2c_lightning.training.frozen_cache.prefill_store import KeptRow

logger = logging.getLogger(__name__)

SHARD_BYTES = 64 * 2**20
"""Rows are collected up to this size before they are written."""

_TOKENS, _ENTRIES = "/tokens", "/entries"


class DiskStore:
    """Rows in a folder. Several processes may read and write it at the same time.

    Shards are immutable: a process writes its new rows to a file of its own under a temporary name and renames it. A
    process that is killed loses the rows that it has not written yet, and nothing else.

    Args:
        folder: the folder of one model, see `CacheIdentity`; it is made if needed.
        max_bytes: further rows are not kept beyond this size of all shards.
        shard_bytes: size at which a shard is written.
    """

    def __init__(self, folder: Path, max_bytes: int, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.max_bytes, self.shard_bytes = folder, max_bytes, shard_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._new: dict[str, KeptRow] = {}
        self._new_bytes = self._written_bytes = self._seen = 0
        self._files: dict[str, Any] = {}  # open shards by file name; None for a damaged one
        self._shard_of: dict[str, Any] = {}  # the open shard of each row
        self._read_folder()

    @property
    def num_bytes(self) -> int:
        """See `PrefillStore.num_bytes`; those that other processes have not written yet are not known."""
        return self._written_bytes + self._new_bytes

    def get(self, key: str) -> KeptRow | None:
        """See `PrefillStore.get`."""
        if key in self._new:
            return self._new[key]
        if key not in self._shard_of:
            self._read_folder()
        shard = self._shard_of.get(key)
        return None if shard is None else KeptRow(shard.get_tensor(key + _TOKENS), shard.get_tensor(key + _ENTRIES))

    def put(self, key: str, row: KeptRow) -> None:
        """See `PrefillStore.put`."""
        if self.num_bytes + row.num_bytes > self.max_bytes:
            return
        self._new[key] = row
        self._new_bytes += row.num_bytes
        if self._new_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the new rows as a shard."""
        if not self._new:
            return
        tensors: dict[str, Tensor] = {}
        for key, row in self._new.items():
            tensors |= {key + _TOKENS: row.tokens, key + _ENTRIES: row.entries}
        name = f"rows-{uuid.uuid4().hex}.safetensors"
        staging = self.folder / f".{name}"
        try:
            save_file(tensors, staging)
            staging.chmod(0o644)  # as other files: safetensors makes it readable by its owner only
            os.replace(staging, self.folder / name)
        finally:
            staging.unlink(missing_ok=True)
        self._new, self._new_bytes = {}, 0
        self._read_folder()

    def _read_folder(self) -> None:
        """Find the shards that were written since the last look."""
        # A new file changes the time of its folder: most looks end here.
        changed = self.folder.stat().st_mtime_ns
        if changed == self._seen:
            return
        self._seen = changed
        for path in sorted(self.folder.glob("rows-*.safetensors")):
            if path.name not in self._files:
                self._files[path.name] = self._open(path)

    def _open(self, path: Path) -> Any:
        try:
            shard = safe_open(path, "pt")
        except SafetensorError as error:
            logger.warning("%s is damaged (%s): its rows are computed again. It can be deleted.", path, error)
            return None
        self._written_bytes += path.stat().st_size
        names: Iterable[str] = shard.keys()  # type: ignore[no-untyped-call]
        keys = (name.removesuffix(_ENTRIES) for name in names if name.endswith(_ENTRIES))
        self._shard_of |= dict.fromkeys(keys, shard)
        return shard
