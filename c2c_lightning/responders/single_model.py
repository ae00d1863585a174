"""One model alone: receiver only, sharer only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.cache import dynamic_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import generate, pad_id
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.generated_text import ChosenLogProbabilities, read_written
from c2c_lightning.responders.option_scoring import OptionEncoder, OptionScores, score_options
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_prompt import QuestionPrompt


class SingleModel:
    """A frozen model that answers conversations, batched and left padded.

    Prompts are prefilled up to their last token, and generation continues from the cache, as in C2C; so with one
    fusion span C2C with closed gates equals this responder bit for bit.

    Attributes:
        name: name in reports.
        lm: the model.
        prefill_phase: name of its prefill among the phases.
    """

    prefill_phase = "prefill_receiver"

    def __init__(self, lm: FrozenLM, name: str, measure_latency: bool = False, with_confidence: bool = False) -> None:
        """Wrap a model.

        Args:
            lm: the model.
            name: name in reports.
            measure_latency: whether to synchronise the device between phases and report their times.
            with_confidence: whether answers carry their mean log-probability.
        """
        self.lm, self.name = lm, name
        self.measure_latency, self.with_confidence = measure_latency, with_confidence
        self.encoder = Encoder(lm.tokenizer_spec, [])
        self.options = OptionEncoder(self.encoder)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts, left padded, on the model's device."""
        encoded = self.encoder.encode_many(list(conversations))
        return collate_prompts(encoded, pad_id(self.lm), []).to(self.lm.device)

    @torch.no_grad()
    def prefill(self, prompt: PromptBatch) -> LayerStack:
        """The model's cache over all prompt tokens but the last."""
        tokens = prompt.receiver
        self.lm.limits.check_length(tokens.input_ids.shape[1])
        return self.lm.prefill(tokens.input_ids[:, :-1], tokens.mask[:, :-1], tokens.positions[:, :-1])

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: all arguments of transformers' `generate`.

        Raises:
            PromptError: a conversation that cannot be encoded, or is longer than the model's context.
        """
        timer = PhaseTimer(self.lm.device, self.measure_latency)
        prompt = self.encode(conversations)
        with timer.phase(self.prefill_phase):
            kv = self.prefill(prompt)
        recorder = ChosenLogProbabilities() if self.with_confidence else None
        with timer.phase("decode"), torch.no_grad():
            kwargs = generate_kwargs | ({} if recorder is None else {"logits_processor": [recorder]})
            ids = generate(self.lm, prompt, dynamic_cache(kv), **kwargs)
        return to_answers(self.lm, prompt, ids, timer, generate_kwargs, recorder)

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option as the whole answer; a prompt is prefilled once for all its options.

        Args:
            conversations: each ends with the user's turn.
            options: for each conversation the texts.
        """
        timer = PhaseTimer(self.lm.device, self.measure_latency)
        prompt = self.encode(conversations)
        with timer.phase(self.prefill_phase):
            kv = self.prefill(prompt)
        with timer.phase("decode"):
            ids = [self.options.encode(c, texts) for c, texts in zip(conversations, options, strict=True)]
            scores = score_options(self.lm, prompt.receiver, kv, ids)
        return timed_scores(scores, prompt, timer)


class ReceiverOnly(SingleModel):
    """The receiver without a sharer."""

    def __init__(self, lm: FrozenLM, name: str = "receiver", measure_latency: bool = False) -> None:
        """Wrap the receiver."""
        super().__init__(lm, name, measure_latency)


class SharerOnly(SingleModel):
    """A sharer alone, which answers the sharers' conversation (private context included)."""

    prefill_phase = "prefill_sharer"

    def __init__(self, lm: FrozenLM, name: str = "sharer", measure_latency: bool = False) -> None:
        """Wrap a sharer."""
        super().__init__(lm, name, measure_latency)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The sharers' prompts, left padded."""
        return super().encode([QuestionPrompt.of(conversation).sharer for conversation in conversations])


def to_answers(
    lm: FrozenLM,
    prompt: PromptBatch,
    ids: Any,
    timer: PhaseTimer,
    kwargs: dict[str, Any],
    recorder: ChosenLogProbabilities | None = None,
) -> list[Answer]:
    """Answers from generated ids.

    Args:
        lm: the generating model.
        prompt: its prompts.
        ids: (batch, prompt + new), as `generate` returns them.
        timer: holds the times of the phases.
        kwargs: arguments of `generate`.
        recorder: holds the log-probabilities, where recorded.
    """
    new_ids = ids[:, prompt.num_receiver_tokens :]
    written = read_written(lm, new_ids, kwargs, None if recorder is None else recorder.finish(new_ids))
    lengths, phases = prompt.receiver.mask.sum(1).tolist(), timer.share(len(prompt))
    seconds = timer.total / len(prompt)
    return [
        Answer(w.text, seconds, int(length), w.num_tokens, log_probability=w.log_probability, phases=phases)
        for w, length in zip(written, lengths, strict=True)
    ]


def timed_scores(scores: list[OptionScores], prompt: PromptBatch, timer: PhaseTimer) -> list[OptionScores]:
    """Scores with the length of their prompt and an equal share of the batch's time."""
    lengths, phases = prompt.receiver.mask.sum(1).tolist(), timer.share(len(prompt))
    seconds = timer.total / len(prompt)
    return [
        replace(score, seconds=seconds, prompt_tokens=int(length), phases=phases)
        for score, length in zip(scores, lengths, strict=True)
    ]
