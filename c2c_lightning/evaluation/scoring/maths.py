"""Maths answers, compared by what they mean (`math-verify`) instead of by how they are written."""

import logging
import re
from typing import Any

from c2c_lightning.errors import MissingExtraError

_ANSWER_LINE = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)


def require_math_verify() -> Any:
    """The library, or one message that says how to get it.

    Raises:
        MissingExtraError: `math-verify` is not installed.
    """
    try:
        import math_verify
    except ImportError as error:
        raise MissingExtraError("maths answers need math-verify: pip install 'c2c-lightning[eval]'") from error
    # It warns of the timeouts that are left out on purpose below.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def final_answer(reply: str) -> str:
    """What a reply gives as its answer: the last `Answer: ...` line, else the whole reply."""
    lines = _ANSWER_LINE.findall(reply)
    return str(lines[-1]).strip() if lines else reply


def judge_maths(reply: str, reference: str) -> tuple[str | None, bool]:
    r"""Whether a reply means the right answer.

    Args:
        reply: what the model wrote.
        reference: the right answer, plain or LaTeX.

    Returns:
        The answer read out of the reply (None if there is none), and whether it is right.
    """
    math_verify = require_math_verify()
    gold = next((parsed for parsed in _readings(math_verify, reference)[::-1] if parsed), [])
    readings = [parsed for parsed in _readings(math_verify, final_answer(reply)) if parsed]
    # No timeouts: they are made with signals, which only a main thread can have.
    right = [given for given in readings if math_verify.verify(gold, given, timeout_seconds=None)]
    extracted = (right or readings or [[None]])[0][-1]
    return None if extracted is None else str(extracted), bool(right)


def _readings(math_verify: Any, text: str) -> list[list[Any]]:
    """What math-verify makes of a text as it stands ("18 dollars"), and as LaTeX ("x^2 + 1")."""
    forms = (text, f"${text.strip('$ .')}$")
    return [math_verify.parse(form, parsing_timeout=None) for form in forms]
