"""JSON files of fuser directories, read strictly: they may come from anywhere."""

import json
from pathlib import Path
from typing import Any

from c2c_lightning.errors import FuserFormatError

MAX_BYTES = 64 * 2**20

DOWNLOAD_AGAIN = "Export or download it again."


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that is complete, not too large or too deeply nested, and repeats no key."""
    if not path.is_file():
        raise FuserFormatError(f"{path} is missing. {DOWNLOAD_AGAIN}")
    if path.stat().st_size > MAX_BYTES:
        raise FuserFormatError(f"{path} has {path.stat().st_size} bytes; such a file has at most {MAX_BYTES}.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys)
    except RecursionError as error:
        raise FuserFormatError(f"{path} is nested too deeply. {DOWNLOAD_AGAIN}") from error
    except ValueError as error:  # of JSON, of UTF-8, or an integer of too many digits
        raise FuserFormatError(f"{path} is not valid JSON ({error}); it may be cut short. {DOWNLOAD_AGAIN}") from error
    if not isinstance(raw, dict):
        raise FuserFormatError(f"{path} holds no JSON object. {DOWNLOAD_AGAIN}")
    return raw


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Parsers differ in which of two equal keys counts, so a file could be read as two fusers.
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the keys {repeated} are given more than once")
    return content
