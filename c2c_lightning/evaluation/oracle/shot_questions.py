"""Questions with their few-shot prompts, checked against the model before anything is run."""

from collections.abc import Sequence

from c2c_lightning.analysis.oracle.model_checks import check_enrichable
from c2c_lightning.errors import BenchmarkError, PromptError
from c2c_lightning.evaluation.oracle.shot_prompt import PromptEncoder, ShotQuestion
from c2c_lightning.evaluation.oracle.shots import Shots
from c2c_lightning.evaluation.tasks import Question
from c2c_lightning.model.frozen_lm import FrozenLM


def encode_questions(
    lm: FrozenLM, encoder: PromptEncoder, questions: Sequence[Question], shots: Shots
) -> list[ShotQuestion]:
    """The questions with their prompts.

    Raises:
        BenchmarkError: there are fewer than two questions, so that they have no halves.
        PromptError: a prompt that is longer than the model's context or attention window, by its question.
        UnsupportedModelError: a model whose cache cannot be enriched.
    """
    if len(questions) < 2:
        raise BenchmarkError(f"{len(questions)} questions cannot be split in halves: give at least 2.")
    # One question of each subject: long shots are not encoded for every question.
    firsts = {question.subject: question for question in questions}
    contexts = {subject: encoder.context(question, shots[subject]) for subject, question in firsts.items()}
    asked = [ShotQuestion(question, encoder.encode(question, contexts[question.subject])) for question in questions]
    longest = max(asked, key=lambda one: one.parts.num_tokens)
    limit = lm.max_tokens
    if limit is not None and longest.parts.num_tokens > limit:
        raise PromptError(
            f"question {longest.question.id} with its shots and an option has {longest.parts.num_tokens} tokens, but "
            f"the context of {lm.spec.path} has {limit}. Set `num_shots` lower, or leave such questions out."
        )
    check_enrichable(lm, longest.parts.num_tokens)
    return asked
