"""Whole answers: the receiver alone, text-to-text and C2C, as evaluation asks for them."""

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from c2c_lightning.data.messages import Conversation
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.model_pair import FIRST_WORD
from c2c_lightning.profiling.timing import Times
from c2c_lightning.responders.base import Answer, Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly
from c2c_lightning.responders.text_to_text import TextToText


@dataclass(frozen=True)
class AnswerLatency:
    """Seconds from a question to the end of an answer of a given length.

    Attributes:
        prompt_tokens: length of the question, in tokens.
        message_tokens: length of the sharer's message in text-to-text, in tokens (the paper's limit is 256).
        new_tokens: length of the answer, in tokens; at most that of the message.
        rounds: how often each is timed.
    """

    prompt_tokens: int = 256
    message_tokens: int = 256
    new_tokens: int = 32
    rounds: int = 3
    name: str = "answers"

    def run(self, bench: BenchContext) -> Result:
        """Time all responders alternately."""
        model, done = bench.build(), bench.progress(self.rounds)
        question, responders = [self._question(model)], self._responders(model)
        kwargs: dict[str, Any] = {"max_new_tokens": self.new_tokens, "min_new_tokens": self.new_tokens}
        kwargs["do_sample"] = False
        answers: dict[str, list[Answer]] = {responder.name: [] for responder in responders}
        times = {name: Times() for name in answers}
        for _ in range(self.rounds):
            for responder in responders:
                written = answers[responder.name]
                times[responder.name].measure(lambda: written.extend(responder.respond(question, **kwargs)))  # noqa: B023
            done()
        seconds = {name: timed.seconds for name, timed in times.items()}
        return {
            "seconds": seconds,
            "cpu_seconds": {name: timed.cpu_seconds for name, timed in times.items()},
            "t2t_over_c2c": seconds["t2t"] / seconds["c2c"],
            "phases": {name: _phases(given) for name, given in answers.items()},
            "tokens": {name: _tokens(given[0]) for name, given in answers.items()},
            "rounds": self.rounds,
        }

    def _question(self, model: C2CModel) -> Conversation:
        random = np.random.default_rng(0)
        ids = random.integers(FIRST_WORD, smallest_vocabulary(model), self.prompt_tokens).tolist()
        return [{"role": "user", "content": str(model.receiver.tokenizer.decode(ids))}]

    def _responders(self, model: C2CModel) -> list[Responder]:
        receiver = ReceiverOnly(model.receiver, measure_latency=True)
        sharer = SharerOnly(model.sharers[0], measure_latency=True)
        t2t = TextToText(receiver, sharer, message_max_new_tokens=self.message_tokens)
        return [receiver, t2t, C2CResponder(model, measure_latency=True)]


def _phases(answers: list[Answer]) -> dict[str, float]:
    """Median seconds of each phase."""
    phases = [answer.phases or {} for answer in answers]
    return {name: median(seconds[name] for seconds in phases) for name in phases[0]}


def _tokens(answer: Answer) -> dict[str, int]:
    return {
        "read_by_receiver": answer.prompt_tokens,
        "read_by_sharer": answer.sharer_tokens,
        "message": answer.message_tokens,
        "new": answer.new_tokens,
    }
