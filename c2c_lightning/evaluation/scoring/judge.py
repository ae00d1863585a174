"""From what was said to whether it is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from c2c_lightning.evaluation.scoring.extract import ExtractionRule, choice_text, extract_choice, normalise
from c2c_lightning.evaluation.scoring.longbench import longbench_score
from c2c_lightning.evaluation.scoring.maths import judge_maths
from c2c_lightning.evaluation.tasks.prompts import letter
from c2c_lightning.evaluation.tasks.question import Question
from c2c_lightning.evaluation.tasks.task import Task
from c2c_lightning.responders.option_scoring import OptionScores

Normalisation = Literal["characters", "tokens", "none"]


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth.

    Attributes:
        output: what was written or chosen.
        extracted: the answer read out of it, None if there is none.
        score: 0 wrong to 1 right.
        choice: index of the choice, where there are choices.
        confidence: probability of the chosen option among the options, where likelihoods were compared.
    """

    output: str
    extracted: str | None
    score: float
    choice: int | None = None
    confidence: float | None = None


def judge_reply(reply: str, question: Question, benchmark: Task) -> Judgement:
    """What a written reply is worth, by the benchmark's rule.

    Args:
        reply: what the model wrote.
        question: what it was asked.
        benchmark: says how replies are read.
    """
    if benchmark.scoring == "maths":
        extracted, is_right = judge_maths(reply, question.gold)
        return Judgement(reply, extracted, float(is_right))
    if benchmark.scoring == "longbench":
        score = longbench_score(reply, question.task, question.references, question.classes)
        return Judgement(reply, reply.strip() or None, score)
    index = extract_choice(reply, question.choices, cast(ExtractionRule, benchmark.scoring))
    return Judgement(reply, shown(question, index, benchmark), float(index == question.answer), index)


def judge_scores(scores: OptionScores, question: Question, benchmark: Task) -> Judgement:
    """Which option a model finds likeliest, and what that is worth.

    Args:
        scores: log-probabilities of the options.
        question: what was asked.
        benchmark: says what the log-probabilities are divided by (`letter`: nothing).
    """
    rule: Normalisation = "none" if benchmark.mode == "letter" else benchmark.normalise or "characters"
    values = normalised(scores, question.choices, rule)
    index = max(range(len(values)), key=values.__getitem__)
    output = shown(question, index, benchmark) or ""
    # Only undivided log-probabilities are those of something, and so can be calibrated.
    confidence = 1 / sum(math.exp(value - values[index]) for value in values) if rule == "none" else None
    return Judgement(output, output, float(index == question.answer), index, confidence)


def normalised(scores: OptionScores, choices: Sequence[str], rule: Normalisation) -> list[float]:
    """Log-probabilities of options by their length.

    Args:
        scores: of the options.
        choices: their texts.
        rule: `characters` (as lm-evaluation-harness's acc_norm), `tokens` or `none`.
    """
    lengths: Sequence[int] = {
        "characters": [max(len(choice), 1) for choice in choices],
        "tokens": scores.num_tokens,
        "none": [1] * len(choices),
    }[rule]
    return [value / length for value, length in zip(scores.log_probabilities, lengths, strict=True)]


def options_of(question: Question, benchmark: Task) -> list[str]:
    """The texts whose likelihoods are compared: the choices, or the letters after the paper's words."""
    if benchmark.mode == "letter":
        return [f"The correct answer is {letter(n)}" for n in range(len(question.choices))]
    return list(question.choices)


def shown(question: Question, index: int | None, benchmark: Task) -> str | None:
    """A choice as the model could have said it: by its letter where letters are shown, else by its text."""
    if index is None:
        return None
    return letter(index) if benchmark.worded().shows_choices else question.choices[index]


def follows(judgement: Judgement, question: Question, donor: Question, benchmark: Task) -> bool | None:
    """Whether an answer is the right one of another question; None where that one was no choice.

    Args:
        judgement: of the answer.
        question: what was asked.
        donor: the question whose cache was read.
        benchmark: says whether letters were shown, and whether only the choices could be answered.
    """
    if benchmark.worded().shows_choices:
        return judgement.choice is not None and judgement.choice == donor.answer
    if benchmark.mode == "cloze" and normalise(donor.gold) not in map(normalise, question.choices):
        return None
    if judgement.choice is not None:
        return normalise(question.choices[judgement.choice]) == normalise(donor.gold)
    return choice_text(judgement.output, donor.choices or (donor.gold,)) == (donor.answer or 0)
