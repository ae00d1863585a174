"""Parsing of command lines: bounded YAML, and suggestions for misspelt keys."""

import inspect
import re
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, get_loader, set_loader

#: Nodes of a YAML document after its aliases are expanded, and how deeply they may be nested.
MAX_YAML_NODES, MAX_YAML_DEPTH = 100_000, 100

NOT_TEXT = "A configuration file is not text in UTF-8. Name a YAML file with `--config`."

#: PyYAML's name of a document that it was given as text.
_NO_FILE_NAME = '"<unicode string>"'

_UNKNOWN_KEY = re.compile(r"unrecognized arguments: (?:--)?([\w.]+)|does not accept option '([^']+)'")
_UNKNOWN_ARGUMENT = re.compile(r"class_path '([^']+)':\s+Option '(\w+)' is not accepted")
_PYTHON_CLASS = re.compile(r"Expected a <class '([\w.]+)'>")
_PYTHON_LITERAL = re.compile(r"Expected a typing\.Literal\[([^\]]*)\]")
_MODEL_AS_TEXT = re.compile(r'Parser key "((?:\w+\.)?(?:receiver|sharers))":')


class OptionHelpFormatter(DefaultHelpFormatter):
    """Leaves out `default: null`: the help of such an option says what happens without it."""

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        if action.default is not None:
            return text
        return text.replace(" (default: %(default)s)", "").replace(", default: %(default)s", "")


class HelpFormatter(RawDescriptionHelpFormatter, OptionHelpFormatter):
    """Keeps the lines of the examples."""


class ParserReady(Exception):
    """Carries a parser out of the function that makes it."""

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


_is_parser_wanted = ContextVar("_is_parser_wanted", default=False)


class CommandParser(ArgumentParser):
    """A parser that raises its errors, for `main` to print, instead of printing its usage and exiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `ArgumentParser`."""
        defaults: dict[str, Any] = {
            "exit_on_error": False,
            "allow_abbrev": False,
            "formatter_class": OptionHelpFormatter,
        }
        super().__init__(*args, **{**defaults, **kwargs})

    def options(self, args: Sequence[str]) -> Any:
        """The parsed and instantiated options.

        Raises:
            ArgumentError: a mistake of the user, with a suggestion where a key is misspelt.
            ParserReady: within `parser_of`.
        """
        if is_parser_wanted():
            raise ParserReady(self)
        try:
            return self.instantiate(self.parse_args(list(args)))
        except ArgumentError as error:
            raise with_suggestion(error, self) from error
        except UnicodeDecodeError as error:
            raise ArgumentError(None, NOT_TEXT) from error


def is_parser_wanted() -> bool:
    """Whether a command shall raise its parser as `ParserReady` instead of running."""
    return _is_parser_wanted.get()


def parser_of(run: Callable[[Sequence[str]], None], words: Sequence[str]) -> ArgumentParser:
    """The parser of a command, which is not run.

    Args:
        run: the command's function.
        words: the words that name the command.
    """
    token = _is_parser_wanted.set(True)
    try:
        run(words)
    except ParserReady as ready:
        return ready.parser
    finally:
        _is_parser_wanted.reset(token)
    raise AssertionError(f"`{' '.join(words)}` has not parsed its options by `CommandParser.options`")


def with_suggestion(error: ArgumentError, *parsers: ArgumentParser) -> ArgumentError:
    """The same error with the known key that is most like an unknown one, or the form of a language model."""
    message = str(error)
    if found := _UNKNOWN_KEY.search(message):
        known = {name for parser in parsers for name in _keys(parser)}
        # On a command line an option is named with its dashes.
        dashes = "--" if found[0].endswith(f"--{found[1] or found[2]}") else ""
        message += did_you_mean(f"{dashes}{found[1] or found[2]}", {f"{dashes}{name}" for name in known})
    elif found := _UNKNOWN_ARGUMENT.search(message):
        made = locate(found[1])
        message += did_you_mean(found[2], inspect.signature(made).parameters if callable(made) else ())
    elif found := _MODEL_AS_TEXT.search(message):
        is_list = found[1].endswith("sharers")
        form = "[{path: DIRECTORY_OR_HUB_ID}, ...]" if is_list else "{path: DIRECTORY_OR_HUB_ID}"
        message += f"\nA language model is given as a mapping: `{found[1]}: {form}`."
    message = _PYTHON_CLASS.sub(r"Expected \1", message)
    return ArgumentError(None, _PYTHON_LITERAL.sub(r"Expected one of \1", message))


def _keys(parser: ArgumentParser) -> Iterator[str]:
    """The dotted names of a parser's options."""
    for action in parser._actions:
        yield action.dest
        yield from (option.removeprefix("--") for option in action.option_strings)


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """A line that names the known key most like `key`; empty where none is like it."""
    close = get_close_matches(key, sorted(set(known)), n=1, cutoff=0.6)
    return f"\nDid you mean `{close[0]}`?" if close else ""


def with_file_name(message: str, words: Sequence[str]) -> str:
    """A message on YAML that cannot be parsed, with the configuration file that is meant."""
    if _NO_FILE_NAME not in message:
        return message
    places = [place for place, word in enumerate(words[1:]) if word == "--config"]
    given = [words[place + 2] for place in places if place + 2 < len(words)]
    given += [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    path = next((path for path in given if _is_malformed(Path(path))), None)
    return message if path is None else message.replace(_NO_FILE_NAME, f"`{path}`")


def _is_malformed(path: Path) -> bool:
    try:
        yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except yaml.MarkedYAMLError:
        return True
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        pass
    return False


def bound_yaml() -> None:
    """Let jsonargparse refuse YAML that is nested without bound, or whose aliases expand to too many values."""
    load = get_loader("yaml")
    if load.__module__ == __name__:  # done already
        return

    def load_bounded(text: str) -> Any:
        if ("&" in text and "*" in text) or text.count("[") + text.count("{") > MAX_YAML_DEPTH:
            _expanded_nodes(_composed(text), {}, 0)
        return load(text)

    set_loader("yaml", load_bounded, (yaml.YAMLError,))


def _composed(text: str) -> Any:
    """The nodes of a YAML document, with aliases as references."""
    try:
        return yaml.compose(text, yaml.SafeLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply.") from error


def _expanded_nodes(node: Any, counted: dict[int, int], depth: int) -> int:
    """How many nodes a document has when each alias is replaced by what it refers to."""
    if depth > MAX_YAML_DEPTH:
        raise yaml.YAMLError(f"it is nested more than {MAX_YAML_DEPTH} levels deep.")
    if id(node) not in counted:
        counted[id(node)] = MAX_YAML_NODES  # an alias to a node around it has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        counted[id(node)] = 1 + sum(_expanded_nodes(child, counted, depth + 1) for child in children)
    if counted[id(node)] > MAX_YAML_NODES:
        raise yaml.YAMLError(f"its aliases expand to more than {MAX_YAML_NODES:,} values. Write it without aliases.")
    return counted[id(node)]
