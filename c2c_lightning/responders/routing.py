"""Routing: each question goes to the model that is surer of its own answer.

The paper routes with RouteLLM (A.3.3), whose router needs embeddings from a paid service and was fitted to two other
models; its code is not published. This router needs neither: both models answer, and the answer with the higher mean
log-probability of a token is taken. It therefore costs both answers. What a perfect router would reach ("right if
either is right") stands in the report as `oracle`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.option_scoring import OptionScores
from c2c_lightning.responders.single_model import SingleModel


class Routing:
    """The surer one of several models answers.

    Attributes:
        name: how it is called in reports.
    """

    def __init__(self, models: Sequence[SingleModel], name: str = "routing") -> None:
        """Take the models; they must record their confidence.

        Args:
            models: the receiver and sharers; among equals the first answers.
            name: how to call it in reports.
        """
        if not all(model.with_confidence for model in models):
            raise ValueError("routing needs models that record their confidence (`with_confidence=True`).")
        self.models, self.name = tuple(models), name

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations, each by the surer model.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: for all models.
        """
        by_model = [model.respond(conversations, **generate_kwargs) for model in self.models]
        return [self._surest(answers) for answers in zip(*by_model, strict=True)]

    def _surest(self, answers: tuple[Answer, ...]) -> Answer:
        best = max(answers, key=_confidence)
        return replace(best, seconds=sum(answer.seconds for answer in answers), phases=None)

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """The scores of the model that finds its own best option likelier, per token."""
        by_model = [model.score(conversations, options) for model in self.models]
        return [self._surest_scores(scores) for scores in zip(*by_model, strict=True)]

    def _surest_scores(self, scores: tuple[OptionScores, ...]) -> OptionScores:
        best = max(scores, key=_best_per_token)
        return replace(best, seconds=sum(score.seconds for score in scores), phases=None)


def _confidence(answer: Answer) -> float:
    assert answer.log_probability is not None
    return answer.log_probability


def _best_per_token(scores: OptionScores) -> float:
    return max(total / count for total, count in zip(scores.log_probabilities, scores.num_tokens, strict=True))
