"""Cache-to-cache communication as a responder, alone and together with text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, positions_of
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.generation import generate
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.option_scoring import OptionEncoder, OptionScores, score_fused_options
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import timed_scores, to_answers
from c2c_lightning.responders.text_to_text import TextToText, with_message

Reply = TypeVar("Reply", Answer, OptionScores)


class C2CResponder:
    """The receiver answers on a cache that its sharers' caches are fused into.

    Controls override `encode` (the sharers' tokens) or `sharer_kv` (the content of their caches).

    Attributes:
        name: name in reports.
        model: the fused model.
    """

    def __init__(self, model: C2CModel, name: str = "c2c", measure_latency: bool = False) -> None:
        """Wrap a fused model.

        Args:
            model: receiver, sharers and fuser.
            name: name in reports.
            measure_latency: whether to synchronise the device between phases and report their times.
        """
        self.model, self.name, self.measure_latency = model, name, measure_latency
        self.options = OptionEncoder(model.encoder)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts of all models, left padded."""
        sharers = [QuestionPrompt.of(conversation).sharer for conversation in conversations]
        private = [None if theirs == mine else theirs for mine, theirs in zip(conversations, sharers, strict=True)]
        return self.model.encode(conversations, private)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt.

        Args:
            prompt: the encoded conversations.
            conversations: the same as messages; controls derive their seeds from them.
        """
        return self.model.prefill_sharers(prompt)

    @torch.no_grad()
    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: all arguments of transformers' `generate`.
        """
        timer, prompt = self._start(conversations)
        with timer.phase("prefill_sharer"):
            sharer_kv = self.sharer_kv(prompt, conversations)
        with timer.module_phase(self.model.fuser, "fuse"):
            with timer.phase("prefill_receiver"):
                cache = self.model.fuse(prompt, sharer_kv=sharer_kv)
            with timer.phase("decode"):
                ids: Tensor = generate(self.model.receiver, prompt, cache, **generate_kwargs)
        answers = to_answers(self.model.receiver, prompt, ids, timer, generate_kwargs)
        return _with_prompt_facts(answers, prompt, sharer_kv)

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option on the fused cache, which is computed once for all options of a prompt.

        Args:
            conversations: each ends with the user's turn.
            options: for each conversation the texts.
        """
        timer, prompt = self._start(conversations)
        with timer.phase("prefill_sharer"):
            sharer_kv = self.sharer_kv(prompt, conversations)
        ids = [self.options.encode(c, texts) for c, texts in zip(conversations, options, strict=True)]
        with timer.module_phase(self.model.fuser, "fuse"):
            scores = score_fused_options(self.model, prompt, sharer_kv, ids, timer)
        return _with_prompt_facts(timed_scores(scores, prompt, timer), prompt, sharer_kv)

    def _start(self, conversations: Sequence[Conversation]) -> tuple[PhaseTimer, PromptBatch]:
        device = self.model.receiver.device
        prompt = self.encode(conversations).to(device)
        self.model.receiver.limits.check_length(prompt.num_receiver_tokens)
        return PhaseTimer(device, self.measure_latency), prompt


def _with_prompt_facts(
    replies: Sequence[Reply], prompt: PromptBatch, sharer_kv: Sequence[LayerStack | None]
) -> list[Reply]:
    """Replies with the number of sharer tokens and the kind of positions of their prompts."""
    masks = [s.mask.sum(1) for s, kv in zip(prompt.sharers, sharer_kv, strict=True) if kv is not None]
    counts: list[int] = torch.stack(masks).sum(0).tolist() if masks else [0] * len(prompt)
    tokens = prompt.receiver
    is_shifted = (tokens.positions != positions_of(tokens.mask)) & tokens.mask.bool()
    facts = zip(replies, counts, is_shifted.any(1).tolist(), strict=True)
    return [replace(reply, sharer_tokens=count, shifted_positions=shifted) for reply, count, shifted in facts]


class SomeSharers(C2CResponder):
    """C2C with a part of its sharers; with none of them, the receiver alone in the passes and positions of C2C.

    Attributes:
        active: numbers of the active sharers.
    """

    def __init__(self, model: C2CModel, active: Sequence[int], name: str, measure_latency: bool = False) -> None:
        """Wrap a fused model with the numbers of its active sharers."""
        super().__init__(model, name, measure_latency)
        self.active = tuple(active)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """As `C2CResponder.sharer_kv`; None for inactive sharers."""
        return self.model.prefill_sharers(prompt, self.active)


class TextAndCache:
    """T-C2C: the sharer writes a message, and its cache over the three turns is fused too (paper, table 15).

    The receiver reads request, message and question. The sharer reads the same turns after its own (private) context.

    Attributes:
        name: name in reports.
    """

    def __init__(self, c2c: C2CResponder, t2t: TextToText, name: str = "t-c2c") -> None:
        """Combine both ways of communication.

        Args:
            c2c: answers on the fused cache.
            t2t: generates the message and builds the turns.
            name: name in reports.
        """
        self.c2c, self.t2t, self.name = c2c, t2t, name

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: for both models; `max_new_tokens` is that of the answer.
        """
        messages = self.t2t.messages(conversations, **generate_kwargs)
        answers = self.c2c.respond(self._turns(conversations, messages), **generate_kwargs)
        return [with_message(answer, message) for answer, message in zip(answers, messages, strict=True)]

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option after the turns, on the fused cache."""
        messages = self.t2t.messages(conversations, do_sample=False)
        scores = self.c2c.score(self._turns(conversations, messages), options)
        return [with_message(score, message) for score, message in zip(scores, messages, strict=True)]

    def _turns(self, conversations: Sequence[Conversation], messages: Sequence[Answer]) -> list[QuestionPrompt]:
        pairs = [(c, message.text) for c, message in zip(conversations, messages, strict=True)]
        return [QuestionPrompt(self.t2t.turns(*pair), sharer=self.t2t.sharer_turns(*pair)) for pair in pairs]
