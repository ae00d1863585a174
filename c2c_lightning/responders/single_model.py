"""One model alone: receiver only, sharer only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import ChannelError
from c2c_lightning.kv.cache import dynamic_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.ended_rows import generate_rows
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import pad_id
from c2c_lightning.model.shared_prefix import prefill_prompts
from c2c_lightning.responders.base import Answer, OptionScores, Reply
from c2c_lightning.responders.generated_text import ChosenLogProbabilities, decode_answers
from c2c_lightning.responders.option_scoring import OptionEncoder, score_options
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_prompt import QuestionPrompt

AnyReply = TypeVar("AnyReply", bound=Reply)


class SingleModel:
    """A frozen model that answers conversations, batched and left padded.

    Prompts are prefilled up to their last token, and generation continues from the cache, as in C2C; so with one
    fusion span C2C with closed gates equals this responder bit for bit.

    Args:
        lm: the model.
        name: name in reports; default the role.
        measure_latency: whether to synchronise the device between phases and report their times.
        with_confidence: whether answers carry their mean log-probability.
    """

    role = "receiver"

    def __init__(
        self, lm: FrozenLM, name: str | None = None, measure_latency: bool = False, with_confidence: bool = False
    ) -> None:
        if not lm.can_generate:
            raise ChannelError(
                f"the sharer at {lm.spec.url} gives caches only, so it cannot answer by itself. Load it here, or leave "
                "`sharer`, `t2t` and `routing` out."
            )
        self.lm, self.name = lm, name or self.role
        self.measure_latency, self.with_confidence = measure_latency, with_confidence
        self.encoder = Encoder(lm.tokenizer_spec, [])
        self.options = OptionEncoder(self.encoder)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts, left padded, on the model's device."""
        encoded = self.encoder.encode_many(list(conversations))
        return collate_prompts(encoded, pad_id(self.lm), []).to(self.lm.device)

    def _prefill(self, conversations: Sequence[Conversation]) -> tuple[PhaseTimer, PromptBatch, LayerStack]:
        """The prompts, and the model's cache over all their tokens but the last."""
        timer = PhaseTimer(self.lm.device, self.measure_latency)
        prompt = self.encode(conversations)
        tokens = prompt.receiver
        # First: positions beyond the context are index errors in some models and silent nonsense in others.
        self.lm.limits.check_length(tokens.input_ids.shape[1])
        with timer.phase(f"prefill_{self.role}"):
            # The last prompt token is run by `generate`, or in front of the options: its logits are the first needed.
            kv = self._cache(tokens, tokens.input_ids.shape[1] - 1)
        return timer, prompt, kv

    def _cache(self, tokens: TokenBatch, until: int) -> LayerStack:
        return self.lm.prefill_tokens(tokens, until=until)

    @torch.no_grad()
    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations; PromptError for one that is longer than the model's context."""
        timer, prompt, kv = self._prefill(conversations)
        # Not for every answer: a log-softmax over the vocabulary at each step.
        recorder = ChosenLogProbabilities() if self.with_confidence else None
        kwargs = generate_kwargs | ({} if recorder is None else {"logits_processor": [recorder]})
        with timer.phase("decode"):
            ids = generate_rows(self.lm, prompt, dynamic_cache(kv), **kwargs)
        answers = decode_answers(self.lm, ids[:, prompt.num_receiver_tokens :], generate_kwargs, recorder)
        return timed(answers, prompt, timer)

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option; a prompt is prefilled once for all its options."""
        timer, prompt, kv = self._prefill(conversations)
        with timer.phase("decode"):
            ids = [self.options.encode(c, texts) for c, texts in zip(conversations, options, strict=True)]
            scores = score_options(self.lm, prompt.receiver, kv, ids)
        return timed(scores, prompt, timer)


class ReceiverOnly(SingleModel):
    """The receiver without a sharer."""


class PrivateReader(SingleModel):
    """A model whose prompts may begin with common worked examples, which are prefilled once."""

    def _cache(self, tokens: TokenBatch, until: int) -> LayerStack:
        return prefill_prompts(self.lm, tokens, until)


class ReceiverWithDocument(PrivateReader):
    """The receiver reads the sharers' conversation itself, private text included: the ceiling of private context."""

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The sharers' conversations, left padded."""
        return super().encode([QuestionPrompt.of(conversation).sharer for conversation in conversations])


class SharerOnly(PrivateReader):
    """A sharer alone, which answers the sharers' conversation (private context included)."""

    role = "sharer"

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The sharers' prompts, left padded."""
        return super().encode([QuestionPrompt.of(conversation).sharer for conversation in conversations])


class WithoutDocument(PrivateReader):
    """One model alone on worked examples and question, without the private text: questions that can be guessed."""

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts without private text, left padded."""
        return super().encode([QuestionPrompt.of(conversation).without_document for conversation in conversations])


def timed(replies: Sequence[AnyReply], prompt: PromptBatch, timer: PhaseTimer) -> list[AnyReply]:
    """Replies with the length of their prompt and an equal part of the batch's time."""
    phases = {name: seconds / len(prompt) for name, seconds in timer.seconds.items()}
    seconds, lengths = sum(phases.values()), prompt.receiver.mask.sum(1).tolist()
    return [
        replace(reply, seconds=seconds, prompt_tokens=length, phases=phases)
        for reply, length in zip(replies, lengths, strict=True)
    ]
