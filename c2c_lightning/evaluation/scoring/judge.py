"""Scores a reply or option log-probabilities against the question's reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.scoring.extract import (
    ExtractionRule,
    choice_text,
    extract_choice,
    first_line_choice,
    normalise,
)
from c2c_lightning.evaluation.scoring.longbench import longbench_score
from c2c_lightning.evaluation.scoring.maths import judge_maths
from c2c_lightning.evaluation.scoring.squad import first_line, squad_scores
from c2c_lightning.evaluation.tasks.benchmark_question import Question
from c2c_lightning.evaluation.tasks.prompts import letter
from c2c_lightning.evaluation.tasks.task import Task
from c2c_lightning.responders.base import OptionScores

Normalisation = Literal["characters", "tokens", "none"]


@dataclass(frozen=True)
class Judgement:
    """The score of one answer.

    Attributes:
        output: the generated text or the chosen option.
        extracted: the answer extracted from it, None if none was found.
        score: 0 (wrong) to 1 (right).
        choice: index of the choice, for multiple choice.
        confidence: probability of the chosen option among the options, where undivided log-probabilities are compared.
        begins_with_choice: whether nothing was extracted although the first line or sentence is the text of a choice.
        f1: F1 over words, with `scoring: squad`, whose score is the exact match.
        written: whether greedy decoding would begin with the text of a right choice, in mode cloze.
    """

    output: str
    extracted: str | None
    score: float
    choice: int | None = None
    confidence: float | None = None
    begins_with_choice: bool = False
    written: bool | None = None
    f1: float | None = None


def judge_reply(reply: str, question: Question, benchmark: Task) -> Judgement:
    """Score a generated reply by the benchmark's rule."""
    if benchmark.scoring == "maths":
        extracted, is_right = judge_maths(reply, question.gold)
        return Judgement(reply, extracted, float(is_right))
    if benchmark.scoring == "longbench":
        score = longbench_score(reply, question.task, question.references, question.classes)
        return Judgement(reply, reply.strip() or None, score)
    if benchmark.scoring == "squad":
        exact, f1 = squad_scores(first_line(reply), question.references)
        return Judgement(reply, first_line(reply) or None, exact, f1=f1)
    index = extract_choice(reply, question.choices, cast(ExtractionRule, benchmark.scoring))
    begins = index is None and first_line_choice(reply, question.choices) is not None
    score = float(index in question.right)
    return Judgement(reply, shown(question, index, benchmark), score, index, begins_with_choice=begins)


def judge_scores(scores: OptionScores, question: Question, benchmark: Task) -> Judgement:
    """Score the option with the highest log-probability; BenchmarkError for NaN, so that no option can be chosen."""
    if any(map(math.isnan, scores.log_probabilities)):
        raise BenchmarkError("log-probabilities are NaN: a model or the fuser computes non-finite values.")
    rule: Normalisation = "none" if benchmark.mode == "letter" else benchmark.normalise or "characters"
    values = normalised(scores, question.choices, rule)
    # Of equal values the first, as lm-evaluation-harness chooses.
    index = max(range(len(values)), key=values.__getitem__)
    output = shown(question, index, benchmark) or ""
    # Only undivided log-probabilities are probabilities of the options, so only they can be calibrated.
    confidence = 1 / sum(math.exp(value - values[index]) for value in values) if rule == "none" else None
    # The letter's sentence is no reply that a model would write; a choice's text is.
    written = any(scores.is_greedy[n] for n in question.right) if benchmark.mode == "cloze" else None
    return Judgement(output, output, float(index in question.right), index, confidence, written=written)


def normalised(scores: OptionScores, choices: Sequence[str], rule: Normalisation) -> list[float]:
    """Log-probabilities of options, divided by their lengths (`characters`: lm-evaluation-harness's acc_norm)."""
    if rule == "none":
        return list(scores.log_probabilities)
    lengths = scores.num_tokens if rule == "tokens" else [max(len(choice), 1) for choice in choices]
    return [value / length for value, length in zip(scores.log_probabilities, lengths, strict=True)]


def options_of(question: Question, benchmark: Task) -> list[str]:
    """The texts of the options: the choices, or a sentence with each letter."""
    if benchmark.mode == "letter":
        return [f"The correct answer is {letter(n)}" for n in range(len(question.choices))]
    return list(question.choices)


def shown(question: Question, index: int | None, benchmark: Task) -> str | None:
    """A choice by its letter where the prompt shows letters, else by its text."""
    if index is None:
        return None
    return letter(index) if benchmark.worded().shows_choices else question.choices[index]


def follows(judgement: Judgement, question: Question, donor: Question, benchmark: Task) -> bool | None:
    """Whether an answer is the right one of the donor, whose cache the sharers' was replaced by.

    None where the donor's answer is none of the question's choices.
    """
    if benchmark.worded().shows_choices:
        return judgement.choice in donor.right
    if benchmark.mode == "generate" and benchmark.scoring == "squad":
        return bool(squad_scores(judgement.extracted or "", donor.references)[0])
    if benchmark.mode == "cloze" and normalise(donor.gold) not in map(normalise, question.choices):
        return None
    if judgement.choice is not None:
        return normalise(question.choices[judgement.choice]) == normalise(donor.gold)
    return choice_text(judgement.output, donor.choices or (donor.gold,)) == (donor.answer or 0)
