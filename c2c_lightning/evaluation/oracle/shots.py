"""The shots of each subject, from the rows of another file."""

import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks import Question

logger = logging.getLogger(__name__)

Shots = Mapping[str, tuple[Question, ...]]
"""The shots of each subject."""


def choose_shots(
    candidates: Sequence[Question], subjects: Sequence[str], count: int, minimum: int | None = None,
    seed: int | None = None,
) -> Shots:  # fmt: skip
    """The shots of subjects.

    Args:
        candidates: questions with answers, of any subject.
        subjects: subjects that need shots.
        count: shots of a subject.
        minimum: how many are enough where there are fewer; default `count`.
        seed: None for the first ones, as released; else a seeded sample of each subject's.

    Raises:
        BenchmarkError: a subject with too few shots, by its name and number.
    """
    enough = count if minimum is None else minimum
    if not 1 <= enough <= count:
        raise BenchmarkError(f"`min_shots` is {enough}, but must be 1 to `num_shots`, which is {count}.")
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for question in candidates:
        if question.right:
            by_subject[question.subject].append(question)
    found = {subject: by_subject[subject] for subject in dict.fromkeys(subjects)}
    short = {subject: len(shots) for subject, shots in found.items() if len(shots) < enough}
    if short:
        listed = ", ".join(f"{subject or '(no subject)'}: {number}" for subject, number in list(short.items())[:5])
        raise BenchmarkError(
            f"{len(short)} of {len(found)} subjects have fewer than {enough} shots ({listed}). Add rows with these "
            "values of `subject` to the shots' file, or set `min_shots` or `num_shots` lower."
        )
    return {subject: tuple(_chosen(shots, count, seed, subject)) for subject, shots in found.items()}


def _chosen(shots: list[Question], count: int, seed: int | None, subject: str) -> list[Question]:
    if seed is None or len(shots) <= count:
        return shots[:count]
    return random.Random(f"{seed} {subject}").sample(shots, count)


def without_shots(questions: Sequence[Question], shots: Shots) -> list[Question]:
    """The questions that are none of their own shots."""
    texts = {subject: {shot.text.strip() for shot in chosen} for subject, chosen in shots.items()}
    kept = [question for question in questions if question.text.strip() not in texts[question.subject]]
    if len(kept) < len(questions):
        logger.info("%d questions are shots of their subject and left out", len(questions) - len(kept))
    return kept
