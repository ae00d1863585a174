"""Rows of the family matrix: what one language model class can do as receiver and as sharer."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.family_matrix.checks import MODES, check_pair, frozen, fused_pair, partner
from benchmarks.family_matrix.classes import LMClass, UntestedError
from c2c_lightning.errors import C2CError

YES, REFUSED, UNTESTED, FAILED = "yes", "refused", "untested", "FAILED"

COLUMNS = (*(f"receiver, `{mode}`" for mode in MODES), "sharer")


@dataclass(frozen=True)
class Row:
    """One class.

    Attributes:
        title: the class and its variant.
        cells: for each of `COLUMNS` whether it passes, is refused or fails.
        reason: why it is refused, untested or fails; empty if it passes.
    """

    title: str
    cells: tuple[str, ...]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def fails(self) -> bool:
        """Whether a property does not hold although the class is accepted, or an error is not a named one."""
        return FAILED in self.cells


def row_of(lm: LMClass) -> Row:
    """All checks of one class."""
    try:
        model = lm.build()
    except UntestedError as error:
        return _same(lm, UNTESTED, str(error))
    try:
        loaded = frozen(model)
    except C2CError as error:
        return _same(lm, REFUSED, short_reason(error))
    except Exception as error:
        return _same(lm, FAILED, f"{type(error).__name__}: {error}")
    other = frozen(partner())
    results = [_outcome(lambda mode=mode: check_pair(fused_pair(loaded, other, mode))) for mode in MODES]  # type: ignore[misc]
    results.append(_outcome(lambda: [check_pair(fused_pair(other, loaded, mode)) for mode in ("prefill", "decode")]))
    reasons = dict.fromkeys(reason for _, reason in results if reason)
    return Row(lm.title, tuple(cell for cell, _ in results), "; ".join(reasons))


def _same(lm: LMClass, cell: str, reason: str) -> Row:
    return Row(lm.title, (cell,) * len(COLUMNS), " ".join(reason.split()))


def _outcome(check: Callable[[], Any]) -> tuple[str, str]:
    try:
        check()
    except C2CError as error:
        return REFUSED, short_reason(error)
    except Exception as error:
        return FAILED, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return YES, ""


def short_reason(error: C2CError) -> str:
    """The reason within the message of a refusal."""
    found = re.search(r"cannot take part in C2C: (.*?)\. Use a ", str(error))
    return found.group(1) if found else str(error)
