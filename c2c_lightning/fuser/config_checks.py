"""Type and value checks of configuration dataclasses, made whenever one is built: from YAML, Python or a file."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from c2c_lightning.errors import FuserConfigError


def check_fields(config: Any) -> None:
    """Check every field of a dataclass against its annotation; to be called in `__post_init__`.

    Raises:
        FuserConfigError: names the field, its value and the possible values.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            shown = reprlib.repr(value)
            raise FuserConfigError(f"{field.name} is {shown}, but must be {_wanted(value, hint)}")


def check_range(config: Any, names: Iterable[str], least: int, most: int) -> None:
    """Check that some integer fields of a dataclass are in [least, most].

    Raises:
        FuserConfigError: names the field and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value < least:
            raise FuserConfigError(f"{name} is {reprlib.repr(value)}, but must be at least {least}.")
        if value > most:
            raise FuserConfigError(f"{name} is {reprlib.repr(value)}, but must be at most {most}.")


def check_names(given: Iterable[str], config_class: type[Any], owner: str) -> None:
    """Check that a dataclass has all the given fields.

    Raises:
        FuserConfigError: names the unknown ones and similar fields.
    """
    known = [field.name for field in fields(config_class)]
    if unknown := sorted(set(given) - set(known)):
        raise FuserConfigError(f"unknown {owner} settings {unknown}.{did_you_mean(unknown[0], known)}")


def did_you_mean(given: Any, choices: Iterable[Any]) -> str:
    """` Did you mean 'c2c'?`, or nothing where no choice is similar."""
    similar = get_close_matches(str(given).lower(), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in args)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in args)
    if origin is list:
        return isinstance(value, list | tuple) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(item, args[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or isinstance(value, origin or hint)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False


def _wanted(value: Any, hint: Any) -> str:
    """Description of an annotation, ending in a full stop and the most similar choice."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return f"one of {', '.join(str(choice) for choice in choices)}.{did_you_mean(value, choices)}"
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", NoneType: "null"}
    return f"{names.get(hint, getattr(hint, '__name__', hint))}."
