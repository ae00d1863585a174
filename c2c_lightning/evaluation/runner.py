"""Questions put to responders, answers judged. Whatever goes wrong with a question counts as a wrong answer."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from c2c_lightning.evaluation.controls import Mismatched
from c2c_lightning.evaluation.memory_peak import peak_memory_of_batch
from c2c_lightning.evaluation.plan import Participant
from c2c_lightning.evaluation.prediction_log import Key, Prediction
from c2c_lightning.evaluation.scoring.judge import Judgement, follows, judge_reply, judge_scores, options_of
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.option_scoring import OptionScores, Scorer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runner:
    """One benchmark.

    Attributes:
        benchmark: the benchmark, with everything filled in.
        questions: all its questions; donors of mismatched caches are rows of this list.
        generate_kwargs: for responders that write.
        seed: of sampled answers; each batch is drawn anew from it, so that neither who answered before nor a run
            that was cut off makes a difference.
    """

    benchmark: Task
    questions: Sequence[Question]
    generate_kwargs: Mapping[str, Any]
    seed: int = 0

    def ask(self, entrant: Participant, questions: Sequence[Question]) -> list[Prediction]:
        """Put a batch of questions to one responder.

        Args:
            entrant: who answers.
            questions: a batch.

        Returns:
            One prediction a question; a question that raises an error counts as wrong and holds the error.
        """
        try:
            return self._ask(entrant, questions)
        # Any error at all: an evaluation of hours must not end, and no question may leave the denominator.
        except Exception as error:
            if len(questions) == 1:
                return [self._failed(entrant, questions[0], error)]
            # One question must not take its batch along.
            return [prediction for question in questions for prediction in self.ask(entrant, [question])]

    def _ask(self, entrant: Participant, questions: Sequence[Question]) -> list[Prediction]:
        conversations = [question.conversation(self.benchmark.worded()) for question in questions]
        said: list[Answer | OptionScores] = []
        with peak_memory_of_batch() as peak, self._seeded(questions):
            if self.benchmark.mode == "generate":
                said += entrant.responder.respond(conversations, **self._kwargs())
            else:
                options = [options_of(question, self.benchmark) for question in questions]
                said += cast(Scorer, entrant.responder).score(conversations, options)
        donors: list[int | None] = [None] * len(questions)
        if isinstance(entrant.responder, Mismatched):
            donors = list(entrant.responder.donors(conversations))
        answered = zip(questions, said, donors, strict=True)
        return [replace(self._judged(entrant, q, s, donor), peak_memory=peak.value) for q, s, donor in answered]

    @contextmanager
    def _seeded(self, questions: Sequence[Question]) -> Iterator[None]:
        """Random numbers that depend on the seed and the batch alone; what is drawn outside goes on as it was."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed + questions[0].index)
            yield

    def _kwargs(self) -> dict[str, Any]:
        kwargs = dict(self.generate_kwargs)
        if self.benchmark.max_new_tokens is not None:
            kwargs["max_new_tokens"] = self.benchmark.max_new_tokens
        return kwargs

    def _judged(
        self, entrant: Participant, question: Question, said: Answer | OptionScores, donor: int | None
    ) -> Prediction:
        if isinstance(said, Answer):
            judgement, new_tokens = judge_reply(said.text, question, self.benchmark), said.new_tokens
            log_probabilities = None
        else:
            judgement, new_tokens = judge_scores(said, question, self.benchmark), 0
            log_probabilities = list(said.log_probabilities)
        other = None if donor is None else self.questions[donor]
        return self._prediction(
            entrant,
            question,
            judgement,
            seconds=said.seconds,
            prompt_tokens=said.prompt_tokens,
            new_tokens=new_tokens,
            sharer_tokens=said.sharer_tokens,
            message_tokens=said.message_tokens,
            log_probabilities=log_probabilities,
            message=said.message,
            phases=None if said.phases is None else dict(said.phases),
            donor=None if other is None else other.index,
            follows_donor=None if other is None else follows(judgement, question, other, self.benchmark),
        )

    def _failed(self, entrant: Participant, question: Question, error: Exception) -> Prediction:
        text = f"{type(error).__name__}: {error}"
        logger.warning("%s, row %d counts as wrong for %s: %s", self.benchmark.name, question.index, entrant.name, text)
        return self._prediction(entrant, question, Judgement("", None, 0.0), error=text)

    def _prediction(self, entrant: Participant, question: Question, judgement: Judgement, **more: Any) -> Prediction:
        shows_letters = bool(question.choices) and self.benchmark.worded().shows_choices
        return Prediction(
            benchmark=self.benchmark.name,
            responder=entrant.name,
            draw=entrant.draw,
            fuser=entrant.fuser,
            index=question.index,
            id=question.id,
            subject=question.subject,
            prompt=question.conversation(self.benchmark.worded())[-1]["content"],
            output=judgement.output,
            extracted=judgement.extracted,
            gold=question.gold_letter if shows_letters else question.gold,
            score=judgement.score,
            correct=judgement.score >= 0.5,
            confidence=judgement.confidence,
            **more,
        )

    def key(self, entrant: Participant, question: Question) -> Key:
        """The key of a prediction."""
        return self.benchmark.name, entrant.name, entrant.fuser, entrant.draw, question.index

    def keys(self, entrants: Sequence[Participant]) -> list[Key]:
        """The keys of all predictions, question by question."""
        return [self.key(entrant, question) for question in self.questions for entrant in entrants]
