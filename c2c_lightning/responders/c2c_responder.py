"""Cache-to-cache communication as a responder, alone and together with text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.option_scoring import OptionEncoder, OptionScores, score_fused_options, score_options
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_views import View, ViewOf, plain_view
from c2c_lightning.responders.single_model import timed_scores, to_answers
from c2c_lightning.responders.text_to_text import TextToText, with_message


class C2CResponder:
    """The receiver answers on a cache that its sharers' caches are fused into.

    Controls override `encode` (what sharers read) or `sharer_kv` (what their caches hold) and nothing else.

    Attributes:
        name: how it is called in reports.
        model: the fused model.
    """

    def __init__(
        self, model: C2CModel, view: ViewOf = plain_view, name: str = "c2c", measure_latency: bool = False
    ) -> None:
        """Take a fused model.

        Args:
            model: receiver, sharers and fuser.
            view: finds what sharers are shown.
            name: how to call it in reports.
            measure_latency: whether to wait for the device between phases and report their times.
        """
        self.model, self.view, self.name, self.measure_latency = model, view, name, measure_latency
        self.options = OptionEncoder(model.encoder)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts as every model reads them, left padded."""
        shown = [self.view(conversation).sharer for conversation in conversations]
        told = [None if theirs == mine else theirs for mine, theirs in zip(conversations, shown, strict=True)]
        return self.model.encode(conversations, told)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt.

        Args:
            prompt: the encoded conversations.
            conversations: the same as messages; controls take their seeds from them.
        """
        return self.model.prefill_sharers(prompt)

    @torch.no_grad()
    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: everything that transformers' `generate` takes.
        """
        clock, prompt = self._start(conversations)
        with clock.phase("prefill_sharer"):
            kv = self.sharer_kv(prompt, conversations)
        with clock.phase("decode"), timed_fusion(self.model, clock):
            ids: Tensor = self.model.generate(prompt, sharer_kv=kv, **generate_kwargs)
        answers = to_answers(self.model.receiver, prompt, ids, clock, generate_kwargs)
        read = _tokens_read(prompt, kv)
        return [replace(answer, sharer_tokens=count) for answer, count in zip(answers, read, strict=True)]

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option on the fused cache, which is made once for all options of a prompt.

        Args:
            conversations: each ends with the user's turn.
            options: for each conversation the texts.
        """
        clock, prompt = self._start(conversations)
        with clock.phase("prefill_sharer"):
            sharer_kv = self.sharer_kv(prompt, conversations)
        with clock.phase("decode"), timed_fusion(self.model, clock):
            ids = [self.options.encode(c, texts) for c, texts in zip(conversations, options, strict=True)]
            if self.model.mode.fuses_last_prompt_token:
                scores = score_fused_options(self.model, prompt, sharer_kv, ids)
            else:
                kv = cache_entries(self.model.fuse(prompt, sharer_kv=sharer_kv))
                scores = score_options(self.model.receiver, prompt.receiver, kv, ids)
        read = _tokens_read(prompt, sharer_kv)
        scores = timed_scores(scores, prompt, clock)
        return [replace(score, sharer_tokens=count) for score, count in zip(scores, read, strict=True)]

    def _start(self, conversations: Sequence[Conversation]) -> tuple[PhaseTimer, PromptBatch]:
        device = self.model.receiver.device
        prompt = self.encode(conversations).to(device)
        self.model.receiver.check_length(prompt.num_receiver_tokens)
        return PhaseTimer(device, self.measure_latency), prompt


def _tokens_read(prompt: PromptBatch, sharer_kv: Sequence[LayerStack | None]) -> list[int]:
    """How many tokens all sharers that take part have in front of them, for each prompt."""
    pairs = zip(prompt.sharers, sharer_kv, strict=True)
    masks = [sharer.mask.sum(1) for sharer, kv in pairs if kv is not None]
    counts: list[int] = torch.stack(masks).sum(0).tolist() if masks else [0] * len(prompt)
    return counts


@contextmanager
def timed_fusion(model: C2CModel, clock: PhaseTimer) -> Iterator[None]:
    """Times the receiver's prefill and the fuser inside, apart from the phase around.

    Args:
        model: its fuser and its receiver's `prefill` are watched as long as the context lasts.
        clock: gets the phases `prefill_receiver` and `fuse`.
    """
    prefill, fuser_forward = model.receiver.prefill, model.fuser.forward

    def timed_prefill(*args: Any, **kwargs: Any) -> LayerStack:
        with clock.phase("prefill_receiver"):
            return prefill(*args, **kwargs)

    def timed_fuser(*args: Any, **kwargs: Any) -> LayerStack:
        with clock.phase("fuse"):
            return fuser_forward(*args, **kwargs)

    # Attributes of the instances hide the methods of their classes; deleting them brings the methods back.
    model.receiver.__dict__["prefill"], model.fuser.__dict__["forward"] = timed_prefill, timed_fuser
    try:
        yield
    finally:
        del model.receiver.__dict__["prefill"], model.fuser.__dict__["forward"]


class SomeSharers(C2CResponder):
    """C2C with a part of its sharers.

    Attributes:
        active: numbers of the sharers that take part.
    """

    def __init__(self, model: C2CModel, active: Sequence[int], view: ViewOf, name: str, measure_latency: bool) -> None:
        """Take a fused model and the sharers that take part."""
        super().__init__(model, view, name, measure_latency)
        self.active = tuple(active)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """As `C2CResponder.sharer_kv`; nothing from sharers that are left out."""
        return self.model.prefill_sharers(prompt, self.active)


class TextAndCache:
    """T-C2C: the sharer writes a message, and its cache over the three turns is fused too (paper, table 15).

    The receiver reads request, message and question; the sharer reads the same turns over what it is shown (with
    private context it sees more), and what both read is fused.

    Attributes:
        name: how it is called in reports.
    """

    def __init__(self, c2c: C2CResponder, t2t: TextToText, name: str = "t-c2c") -> None:
        """Take the two ways to communicate.

        Args:
            c2c: answers on the fused cache.
            t2t: writes the message and lays out the turns.
            name: how to call it in reports.
        """
        self.c2c, self.t2t, self.name = c2c, t2t, name

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: for both models; `max_new_tokens` is the answer's.
        """
        messages = self.t2t.messages(conversations, **generate_kwargs)
        turns, c2c = self._told(conversations, messages)
        answers = c2c.respond(turns, **generate_kwargs)
        return [with_message(answer, message) for answer, message in zip(answers, messages, strict=True)]

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option after the turns, on the fused cache."""
        messages = self.t2t.messages(conversations, do_sample=False)
        turns, c2c = self._told(conversations, messages)
        scores = c2c.score(turns, options)
        return [with_message(score, message) for score, message in zip(scores, messages, strict=True)]

    def _told(
        self, conversations: Sequence[Conversation], messages: Sequence[Answer]
    ) -> tuple[list[Conversation], C2CResponder]:
        """The receiver's turns, and a responder whose sharers are shown theirs."""
        pairs = list(zip(conversations, [message.text for message in messages], strict=True))
        turns = [self.t2t.turns(*pair) for pair in pairs]
        shown = {id(mine): self.t2t.sharer_turns(*pair) for mine, pair in zip(turns, pairs, strict=True)}
        c2c = copy(self.c2c)
        c2c.view = lambda conversation: View("", shown[id(conversation)], "")
        return turns, c2c
