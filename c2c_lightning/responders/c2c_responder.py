"""Cache-to-cache communication as a responder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, positions_of
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.cache_exchange import prompt_bytes
from c2c_lightning.model.ended_rows import generate_rows
from c2c_lightning.responders.base import Answer, OptionScores
from c2c_lightning.responders.generated_text import decode_answers
from c2c_lightning.responders.option_scoring import OptionEncoder, score_fused_options
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import AnyReply, timed


class C2CResponder:
    """The receiver answers on a cache that its sharers' caches are fused into.

    Controls override `encode` (the sharers' tokens) or `sharer_kv` (the content of their caches).

    Args:
        model: receiver, sharers and fuser.
        name: name in reports.
        measure_latency: whether to synchronise the device between phases and report their times.
    """

    def __init__(self, model: C2CModel, name: str = "c2c", measure_latency: bool = False) -> None:
        self.model, self.name, self.measure_latency = model, name, measure_latency
        self.options = OptionEncoder(model.encoder)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts of all models, left padded."""
        sharers = [QuestionPrompt.of(conversation).sharer for conversation in conversations]
        private = [None if theirs == mine else theirs for mine, theirs in zip(conversations, sharers, strict=True)]
        return self.model.encode(conversations, private)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Each sharer's cache over its prompt; controls derive their seeds from the conversations."""
        return self.model.prefill_sharers(prompt)

    @torch.no_grad()
    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations."""
        timer, prompt, sharer_kv = self._prefill_sharers(conversations)
        # Hooks around both phases: in fusion mode `decode` the fuser runs in each step of decoding.
        with timer.module_phase(self.model.fuser, "fuse"):
            with timer.phase("prefill_receiver"):
                cache = self.model.fuse(prompt, sharer_kv=sharer_kv)
            with timer.phase("decode"):
                ids: Tensor = generate_rows(self.model.receiver, prompt, cache, **generate_kwargs)
        answers = decode_answers(self.model.receiver, ids[:, prompt.num_receiver_tokens :], generate_kwargs)
        return self._with_prompt_facts(timed(answers, prompt, timer), prompt, sharer_kv)

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option on the fused cache, which is computed once for all options of a prompt."""
        timer, prompt, sharer_kv = self._prefill_sharers(conversations)
        ids = [self.options.encode(c, texts) for c, texts in zip(conversations, options, strict=True)]
        with timer.module_phase(self.model.fuser, "fuse"):
            scores = score_fused_options(self.model, prompt, sharer_kv, ids, timer)
        return self._with_prompt_facts(timed(scores, prompt, timer), prompt, sharer_kv)

    def _prefill_sharers(
        self, conversations: Sequence[Conversation]
    ) -> tuple[PhaseTimer, PromptBatch, list[LayerStack | None]]:
        device = self.model.receiver.device
        prompt = self.encode(conversations).to(device)
        self.model.receiver.limits.check_length(prompt.num_receiver_tokens)
        timer = PhaseTimer(device, self.measure_latency)
        with timer.phase("prefill_sharer"):
            return timer, prompt, self.sharer_kv(prompt, conversations)

    def _with_prompt_facts(
        self, replies: Sequence[AnyReply], prompt: PromptBatch, sharer_kv: Sequence[LayerStack | None]
    ) -> list[AnyReply]:
        """Replies with the sharer tokens, the bytes sent and the kind of positions of their prompts."""
        # Inactive sharers (None) are encoded too, but cost nothing.
        active = [number for number, kv in enumerate(sharer_kv) if kv is not None]
        none = torch.zeros(len(prompt), dtype=torch.long)
        counts = sum((prompt.sharers[n].mask.sum(1).cpu() for n in active), none).tolist()
        sent = sum((prompt_bytes(self.model, prompt, n).round().long().cpu() for n in active), none).tolist()
        tokens = prompt.receiver
        shifted = ((tokens.positions != positions_of(tokens.mask)) & tokens.mask.bool()).any(1).tolist()
        facts = zip(replies, counts, sent, shifted, strict=True)
        return [replace(r, sharer_tokens=n, bytes_sent=size, shifted_positions=s) for r, n, size, s in facts]


class SomeSharers(C2CResponder):
    """C2C with the sharers of the numbers `active`; without any, the receiver in the passes and positions of C2C."""

    def __init__(self, model: C2CModel, active: Sequence[int], name: str, measure_latency: bool = False) -> None:
        super().__init__(model, name, measure_latency)
        self.active = tuple(active)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """As `C2CResponder.sharer_kv`; None for inactive sharers."""
        return self.model.prefill_sharers(prompt, self.active)
