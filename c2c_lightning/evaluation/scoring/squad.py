"""Exact match and F1 of free answers with SQuAD's normalisation (arXiv 1606.05250, section 6.1)."""

from collections.abc import Sequence
from typing import Any

from torchmetrics.functional.text import squad


def squad_scores(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 over words (0 to 1), each the best over all right answers.

    Case, punctuation, articles and repeated spaces do not count.

    Example:
        >>> squad_scores("the Lantern.", ["lantern", "lamp"])
        (1.0, 1.0)
    """
    target: dict[str, Any] = {"id": "0", "answers": {"answer_start": [0] * len(references), "text": list(references)}}
    scores = squad({"id": "0", "prediction_text": answer}, target)
    return float(scores["exact_match"]) / 100, float(scores["f1"]) / 100


def first_line(reply: str) -> str:
    """The first line of a reply that is not empty: base models continue after their answer."""
    return reply.strip().partition("\n")[0].strip()
