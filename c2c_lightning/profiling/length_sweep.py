"""Seconds of an answer against the length of its prompt and of the response: receiver, sharer and C2C."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.timing import interleaved
from c2c_lightning.responders.base import Answer, Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly
from c2c_lightning.responders.text_to_text import TextToText

_PASSAGE = "The river that runs through the old town turns south behind the mill and meets the road to the coast. "


@dataclass(frozen=True)
class LatencyPoint:
    """One length, one responder.

    Attributes:
        responder: name.
        prompt_tokens: of the receiver's prompt, or the sharer's for the sharer alone.
        new_tokens: of the response.
        seconds: median wall time.
        fastest: seconds of the fastest round.
        slowest: seconds of the slowest round.
        phases: seconds of each phase in one round.
    """

    responder: str
    prompt_tokens: int
    new_tokens: int
    seconds: float
    fastest: float
    slowest: float
    phases: dict[str, float]


@dataclass(frozen=True)
class LengthSweep:
    """Latencies along two lines: over prompts at one response length, and over responses at one prompt length.

    Attributes:
        prompt_tokens: lengths of the question, in receiver tokens, increasing; the smallest is that of the second line.
        new_tokens: lengths of the response, in tokens, increasing; the smallest is that of the first line.
        rounds: how often each is timed, all responders by turns.
        message_tokens: length of the sharer's message in text-to-text, in tokens; 0 leaves text-to-text out.
    """

    prompt_tokens: Sequence[int] = (32, 64, 128, 256)
    new_tokens: Sequence[int] = (8, 16, 32, 64)
    rounds: int = 3
    message_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be timed.

        Raises:
            ConfigurationError: no length, or a length or number of rounds below 1.
        """
        if not self.prompt_tokens or not self.new_tokens:
            raise ConfigurationError("`prompt_tokens` and `new_tokens` must each have at least one length.")
        if min(*self.prompt_tokens, *self.new_tokens, self.rounds) < 1 or self.message_tokens < 0:
            raise ConfigurationError("lengths in tokens and the number of rounds must be 1 or more.")

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Pairs of prompt and response length."""
        shortest = min(self.new_tokens)
        over_prompts = [(prompt, shortest) for prompt in sorted(set(self.prompt_tokens))]
        over_responses = [(min(self.prompt_tokens), new) for new in sorted(set(self.new_tokens)) if new != shortest]
        return over_prompts + over_responses

    def run(self, model: C2CModel, done: Callable[[], None] = lambda: None) -> list[LatencyPoint]:
        """Time a fused model.

        Args:
            model: the fused model, in evaluation mode.
            done: called after each pair of lengths.
        """
        points = []
        for prompt_tokens, new_tokens in self.lengths:
            points += self._points(model, prompt_tokens, new_tokens)
            done()
        return points

    def _points(self, model: C2CModel, prompt_tokens: int, new_tokens: int) -> list[LatencyPoint]:
        question: list[Conversation] = [[{"role": "user", "content": _text(model, prompt_tokens)}]]
        kwargs: dict[str, Any] = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
        latest: dict[str, Answer] = {}

        def work(responder: Responder) -> Callable[[], None]:
            return lambda: latest.update({responder.name: responder.respond(question, **kwargs)[0]})

        times = interleaved({r.name: work(r) for r in self._responders(model)}, self.rounds)
        points = []
        for name, time in times.items():
            answer, wall = latest[name], time.wall
            lengths = answer.prompt_tokens, new_tokens
            points.append(LatencyPoint(name, *lengths, time.seconds, min(wall), max(wall), answer.phases or {}))
        return points

    def _responders(self, model: C2CModel) -> list[Responder]:
        receiver = ReceiverOnly(model.receiver, measure_latency=True)
        sharer = SharerOnly(model.sharers[0], measure_latency=True)
        found: list[Responder] = [receiver, sharer, C2CResponder(model, measure_latency=True)]
        if self.message_tokens:
            found.append(TextToText(receiver, sharer, message_max_new_tokens=self.message_tokens))
        return found


def _text(model: C2CModel, tokens: int) -> str:
    """A text of so many receiver tokens, as far as decoding and encoding agree."""
    tokenizer = model.receiver.tokenizer
    ids = tokenizer(_PASSAGE * (1 + tokens // 20), add_special_tokens=False)["input_ids"][:tokens]
    return str(tokenizer.decode(ids))


def latency_table(points: Sequence[LatencyPoint]) -> Table:
    """A line for each length and responder."""
    table = Table("responder", title="seconds of an answer", title_justify="left")
    for column in ("prompt", "response", "median", "fastest-slowest"):
        table.add_column(column, justify="right")
    for point in points:
        span = f"{point.fastest:.3f}-{point.slowest:.3f}"
        table.add_row(point.responder, str(point.prompt_tokens), str(point.new_tokens), f"{point.seconds:.3f}", span)
    return table


def plain(points: Sequence[LatencyPoint]) -> list[dict[str, Any]]:
    """The points as plain data."""
    return [asdict(point) for point in points]
