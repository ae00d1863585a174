"""Tiny language models and rows of synthetic facts that are part of the package."""

from pathlib import Path

from c2c_lightning.errors import ModelLoadError

_HERE = Path(__file__).parent

PREFIX = "embedded:"
"""Prefix of paths within the package."""


def names() -> list[str]:
    """Names of the embedded models."""
    return sorted(file.parent.name for file in _HERE.glob("*/config.json"))


def path(name: str) -> Path:
    """The directory of an embedded model, for `from_pretrained`.

    Raises:
        ModelLoadError: for an unknown name.

    Example:
        >>> path("receiver").name
        'receiver'
    """
    if name not in names():
        raise ModelLoadError(f"There is no embedded model {name!r}; the package has {', '.join(names())}.")
    return _HERE / name


def facts(file: str) -> Path:
    """The path of an embedded file of facts, such as `train_chat.jsonl`.

    Raises:
        ModelLoadError: for an unknown file.
    """
    found = _HERE / "facts" / file
    if not found.is_file():
        known = ", ".join(sorted(entry.name for entry in found.parent.glob("*.jsonl")))
        raise ModelLoadError(f"There is no embedded file of facts {file!r}; the package has {known}.")
    return found


def resolve(path_or_name: str) -> str:
    """The path of `embedded:NAME` (a model) or `embedded:facts/FILE`; other values are returned unchanged."""
    if not path_or_name.startswith(PREFIX):
        return path_or_name
    name = path_or_name.removeprefix(PREFIX)
    if name.startswith("facts/"):
        return str(facts(f"{name.removeprefix('facts/').removesuffix('.jsonl')}.jsonl"))
    return str(path(name))
