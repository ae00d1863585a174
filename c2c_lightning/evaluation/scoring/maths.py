"""Maths answers, compared by value (`math-verify`) instead of by spelling."""

import logging
import re
from typing import Any

from c2c_lightning.errors import MissingExtraError

_ANSWER_LINE = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)


def require_math_verify() -> Any:
    """The library `math_verify`; MissingExtraError if it is not installed."""
    try:
        import math_verify
    except ImportError as error:
        raise MissingExtraError("maths answers need math-verify: pip install 'c2c-lightning[eval]'") from error
    # It warns about missing timeouts, which are disabled on purpose below.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def final_answer(reply: str) -> str:
    """The answer in a reply: the last `Answer: ...` line, else the whole reply."""
    lines = _ANSWER_LINE.findall(reply)
    return str(lines[-1]).strip() if lines else reply


def judge_maths(reply: str, reference: str) -> tuple[str | None, bool]:
    """The answer in a reply (None if there is none), and whether it equals the reference, plain or LaTeX."""
    math_verify = require_math_verify()
    gold = next((parsed for parsed in _parses(math_verify, reference)[::-1] if parsed), [])
    parses = [parsed for parsed in _parses(math_verify, final_answer(reply)) if parsed]
    # No timeouts: they rely on signals, which only the main thread can handle.
    right = [given for given in parses if math_verify.verify(gold, given, timeout_seconds=None)]
    extracted = (right or parses or [[None]])[0][-1]
    return None if extracted is None else str(extracted), bool(right)


def _parses(math_verify: Any, text: str) -> list[list[Any]]:
    """Parses of a text as plain text ("18 dollars") and as LaTeX ("x^2 + 1")."""
    forms = (text, f"${text.strip('$ .')}$")
    return [math_verify.parse(form, parsing_timeout=None) for form in forms]
