"""Configurations that come with the package: found by name, described, and written as one file each.

They are the folder `configs` of the repository, which the wheel carries as `c2c_lightning/configs`. A name is that of
a file without its suffix, with or without its folder: `quickstart`, `trainer/ddp`, `configs/fit/quickstart.yaml`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentError

from c2c_lightning.commands.parsing import did_you_mean
from c2c_lightning.errors import ConfigurationError

_PACKAGE = Path(__file__).parents[1]

#: Folder of a command's configurations, where it has another name than the command.
_FOLDERS = {"validate": "fit", "test": "eval"}
_COMMANDS = {"eval": "test"}
#: Folders of overlays and parts, which go with a run of any name.
_PARTS = ("trainer", "logger", "data", "model")

_NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)*")
_REFERENCE = re.compile(r"^(?P<key>( *)[\w.]+:) (?P<file>\S+\.yaml)$", re.MULTILINE)


@dataclass(frozen=True)
class ShippedConfig:
    """One configuration of the package.

    Attributes:
        path: its file.
        name: its path below `configs`, without the suffix.
    """

    path: Path
    name: str

    @property
    def command(self) -> str:
        """The command that it is for; empty for an overlay or a part of another configuration."""
        first, _, rest = self.name.partition("/")
        return "" if first in _PARTS or "/" in rest else _COMMANDS.get(first, first)

    @property
    def purpose(self) -> str:
        """The first sentence of the comment at its head."""
        lines: list[str] = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                break
            lines.append(line.removeprefix("# "))
        return re.split(r"(?<=[.?])\s", " ".join(lines), maxsplit=1)[0]

    def standalone(self) -> str:
        """Its text with the files that it refers to in place of the references."""
        return _inlined(self.path)


def config_folder() -> Path:
    """The folder of the configurations: within an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def shipped_configs() -> list[ShippedConfig]:
    """All configurations, those of one folder together."""
    folder = config_folder()
    paths = sorted(folder.rglob("*.yaml"))
    return [ShippedConfig(path, path.relative_to(folder).with_suffix("").as_posix()) for path in paths]


def named_configs(name: str) -> list[ShippedConfig]:
    """The configurations of a name; several where commands have one each.

    Raises:
        ConfigurationError: there is none.
    """
    wanted = _bare(name)
    found = [config for config in shipped_configs() if wanted in _names_of(config)]
    if not found:
        known = {alias for config in shipped_configs() for alias in _names_of(config)}
        raise ConfigurationError(
            f"the package has no configuration {name!r}; `lightning config list` shows all."
            f"{did_you_mean(wanted, known)}"
        )
    return found


def config_path(name: str, command: str) -> Path | None:
    """The file of a configuration of the package, as `command` understands the name; None if there is none."""
    wanted, folder = _bare(name), _FOLDERS.get(command, command)
    first, _, rest = wanted.partition("/")
    candidates = [f"{folder}/{wanted}", wanted, f"{_FOLDERS.get(first, first)}/{rest}"]
    candidates += [f"{part}/{wanted}" for part in _PARTS]
    files = (config_folder() / f"{candidate}.yaml" for candidate in candidates)
    return next((file for file in files if file.is_file()), None)


def with_config_paths(args: Sequence[str], command: str) -> list[str]:
    """A command line with the files of configurations in place of their names; a file of that name comes first.

    Commands without configurations of the package keep their words: `--config` may be another program's there.

    Raises:
        ArgumentError: a name that is neither a file nor a configuration of the package.
    """
    words = list(args)
    if not (config_folder() / _FOLDERS.get(command, command)).is_dir():
        return words
    for place, word in enumerate(words):
        if place and words[place - 1] in ("--config", "-c"):
            words[place] = _located(word, command)
        elif word.startswith("--config="):
            words[place] = f"--config={_located(word.removeprefix('--config='), command)}"
    return words


def _located(given: str, command: str) -> str:
    if not _NAME.fullmatch(given) or Path(given).is_file():
        return given
    found = config_path(given, command)
    if found is not None or Path(given).suffix in (".yaml", ".yml", ".json"):
        return str(found or given)
    known = {name for config in shipped_configs() if config.command in (command, "") for name in _names_of(config)}
    raise ArgumentError(
        None,
        f"there is no file `{given}`, and the package has no such configuration for `{command}`; "
        f"`lightning config list` shows all.{did_you_mean(_bare(given), known)}",
    )


def _bare(name: str) -> str:
    return name.removeprefix("configs/").removesuffix(".yaml")


def _names_of(config: ShippedConfig) -> Iterator[str]:
    """All names of a configuration: `eval/quickstart`, `test/quickstart`, `quickstart`."""
    yield config.name
    yield config.path.stem
    if config.command:
        yield f"{config.command}/{config.path.stem}"


def _inlined(path: Path) -> str:
    """The text of a file, with each `key: FILE.yaml` replaced by the content of that file."""

    def content(found: re.Match[str]) -> str:
        indent = found[2] + "  "
        lines = _inlined(path.parent / found["file"]).rstrip("\n").split("\n")
        return "\n".join([found["key"], *(f"{indent}{line}".rstrip() for line in lines)])

    return _REFERENCE.sub(content, path.read_text(encoding="utf-8"))
