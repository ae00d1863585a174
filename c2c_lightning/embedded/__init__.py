"""A tiny pair of language models and a made-up world, shipped with the package."""

from pathlib import Path

from c2c_lightning.errors import ModelLoadError

_HERE = Path(__file__).parent

PREFIX = "embedded:"
"""Names with this prefix are files of the package."""


def names() -> list[str]:
    """Names of the models that lie in the package."""
    return sorted(file.parent.name for file in _HERE.glob("*/config.json"))


def path(name: str) -> Path:
    """Find an embedded model.

    Args:
        name: of the model, such as `receiver` or `sharer`.

    Returns:
        Its directory, as `from_pretrained` of transformers takes it.

    Raises:
        ModelLoadError: for a name that is not embedded.
    """
    if name not in names():
        raise ModelLoadError(f"There is no embedded model {name!r}; the package has {', '.join(names())}.")
    return _HERE / name


def facts(file: str) -> Path:
    """Find a file of rows about the made-up world.

    Args:
        file: its name, such as `train_chat.jsonl`.

    Raises:
        ModelLoadError: for a file that is not embedded.
    """
    found = _HERE / "facts" / file
    if not found.is_file():
        known = ", ".join(sorted(entry.name for entry in found.parent.glob("*.jsonl")))
        raise ModelLoadError(f"There is no embedded file of facts {file!r}; the package has {known}.")
    return found


def resolve(path_or_name: str) -> str:
    """A local path for `embedded:NAME` (a model) or `embedded:facts/FILE`; anything else as it is."""
    if not path_or_name.startswith(PREFIX):
        return path_or_name
    name = path_or_name.removeprefix(PREFIX)
    if name.startswith("facts/"):
        return str(facts(f"{name.removeprefix('facts/').removesuffix('.jsonl')}.jsonl"))
    return str(path(name))
