"""Routing: of the answers of several models, the one with the highest confidence.

The paper routes with RouteLLM (A.3.3), whose router needs embeddings from a paid service and was fitted to two other
models; its code is not published. This router needs neither: all models answer, and the answer with the highest mean
log-probability of a token is chosen. It therefore costs all answers. The accuracy of a perfect router ("right if any
is right") is the report's field `oracle`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.responders.base import Answer, OptionScores
from c2c_lightning.responders.single_model import AnyReply, SingleModel


class Routing:
    """The answer of the most confident of several models.

    Args:
        models: receiver and sharers, which record their confidence; the first wins a tie.
        name: name in reports.
    """

    def __init__(self, models: Sequence[SingleModel], name: str = "routing") -> None:
        if not all(model.with_confidence for model in models):
            raise ValueError("routing needs models that record their confidence (`with_confidence=True`).")
        self.models, self.name = tuple(models), name

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations, each by the most confident model."""
        by_model = [model.respond(conversations, **generate_kwargs) for model in self.models]
        return [_route(answers, _confidence) for answers in zip(*by_model, strict=True)]

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """The scores of the model whose best option has the highest log-probability per token."""
        by_model = [model.score(conversations, options) for model in self.models]
        return [_route(scores, _best_per_token) for scores in zip(*by_model, strict=True)]


def _route(replies: Sequence[AnyReply], confidence: Callable[[AnyReply], float]) -> AnyReply:
    best = max(replies, key=confidence)
    # Every model has answered, so the time is that of all; phases of one model would not sum to it.
    return replace(best, seconds=sum(reply.seconds for reply in replies), phases=None)


def _confidence(answer: Answer) -> float:
    assert answer.log_probability is not None
    return answer.log_probability


def _best_per_token(scores: OptionScores) -> float:
    return max(total / count for total, count in zip(scores.log_probabilities, scores.num_tokens, strict=True))
