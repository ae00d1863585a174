"""Runs one benchmark: responders answer its questions, and the answers are scored. An error counts as wrong."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from c2c_lightning.evaluation.controls import Mismatched, fork_rng
from c2c_lightning.evaluation.memory_peak import peak_memory_of_batch
from c2c_lightning.evaluation.plan import Participant
from c2c_lightning.evaluation.prediction_log import Key, Prediction
from c2c_lightning.evaluation.scoring.judge import Judgement, follows, judge_reply, judge_scores, options_of
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.responders.base import Answer, OptionScores, Reply

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runner:
    """One benchmark.

    Attributes:
        benchmark: the benchmark, resolved.
        questions: all its questions; donors of mismatched caches are rows of this list.
        generate_kwargs: arguments of `generate`.
        seed: of sampled answers. Each batch is seeded on its own, so that neither other responders nor an interrupted
            run change its samples.
    """

    benchmark: Task
    questions: Sequence[Question]
    generate_kwargs: Mapping[str, Any]
    seed: int = 0

    def run(self, participant: Participant, questions: Sequence[Question]) -> list[Prediction]:
        """One prediction for each question of a batch; one that raises an error counts as wrong and holds the error."""
        try:
            return self._run(participant, questions)
        # Any error: an evaluation of hours must not end, and no question may leave the denominator.
        except Exception as error:
            if len(questions) == 1:
                return [self._failed(participant, questions[0], error)]
            # One failing question must not fail its batch.
            return [prediction for question in questions for prediction in self.run(participant, [question])]

    def _run(self, participant: Participant, questions: Sequence[Question]) -> list[Prediction]:
        prompts = [question.prompt(self.benchmark.worded()) for question in questions]
        replies: list[Answer | OptionScores] = []
        with peak_memory_of_batch() as peak, self._seeded(questions):
            if self.benchmark.mode == "generate":
                replies += participant.responder.respond(prompts, **self._kwargs())
            else:
                options = [options_of(question, self.benchmark) for question in questions]
                replies += participant.responder.score(prompts, options)
        responder = participant.responder
        donors = responder.donors(prompts) if isinstance(responder, Mismatched) else [None] * len(questions)
        answered = zip(questions, replies, donors, strict=True)
        return [replace(self._scored(participant, *parts), peak_memory=peak.value) for parts in answered]

    @contextmanager
    def _seeded(self, questions: Sequence[Question]) -> Iterator[None]:
        """A random state that depends on the seed and the batch alone; the outer state is restored."""
        with fork_rng():
            torch.manual_seed(self.seed + questions[0].index)
            yield

    def _kwargs(self) -> dict[str, Any]:
        limit = self.benchmark.max_new_tokens
        return dict(self.generate_kwargs) | ({} if limit is None else {"max_new_tokens": limit})

    def _scored(
        self, participant: Participant, question: Question, reply: Answer | OptionScores, donor: int | None
    ) -> Prediction:
        details: dict[str, Any] = {field.name: getattr(reply, field.name) for field in fields(Reply)}
        if isinstance(reply, Answer):
            judgement = judge_reply(reply.text, question, self.benchmark)
            details["new_tokens"] = reply.new_tokens
        else:
            judgement = judge_scores(reply, question, self.benchmark)
            details["log_probabilities"] = list(reply.log_probabilities)
        if donor is not None:
            other = self.questions[donor]
            details["donor"] = other.index
            details["follows_donor"] = follows(judgement, question, other, self.benchmark)
        return self._prediction(participant, question, judgement, **details)

    def _failed(self, participant: Participant, question: Question, error: Exception) -> Prediction:
        text, name = f"{type(error).__name__}: {error}", participant.name
        logger.warning("%s, row %d counts as wrong for %s: %s", self.benchmark.name, question.index, name, text)
        return self._prediction(participant, question, Judgement("", None, 0.0), error=text)

    def _prediction(
        self, participant: Participant, question: Question, judgement: Judgement, **details: Any
    ) -> Prediction:
        wording = self.benchmark.worded()
        return Prediction(
            benchmark=self.benchmark.name,
            responder=participant.name,
            draw=participant.draw,
            fuser=participant.fuser,
            index=question.index,
            id=question.id,
            subject=question.subject,
            prompt=question.prompt(wording)[-1]["content"],
            gold=question.gold_letter if question.choices and wording.shows_choices else question.gold,
            # Metrics of LongBench are continuous; paired tests need right or wrong.
            correct=judgement.score >= 0.5,
            **{name: value for name, value in asdict(judgement).items() if name != "choice"},
            **details,
        )

    def key(self, participant: Participant, question: Question) -> Key:
        """The key of a prediction."""
        return self.benchmark.name, participant.name, participant.fuser, participant.draw, question.index

    def keys(self, participants: Sequence[Participant]) -> list[Key]:
        """The keys of all predictions, question by question."""
        return [self.key(participant, question) for question in self.questions for participant in participants]
