"""A conversation that goes on from the caches of its earlier turns."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.generation import generate


class ChatSession:
    """One growing conversation; receiver and sharers run each turn's new tokens only.

    Every answer is the one that reading the whole conversation anew would give, encoded as `prompt` does it. That is
    `C2CModel.encode`, but where sharers read the receiver's own tokens (`identity`) and spans are `sectioned`, one more
    thing is said: a turn that was answered ends a span, so that later turns are read on its fused entries. As one span,
    the whole conversation would have to be read clean, answers too. `span_order: one_pass` does that: answers are read
    once more then, and all else goes on from what was kept.

    Attributes:
        model: the fused model.
        messages: what was said so far.
        kept: the last turn as it was read, with its answer.
    """

    def __init__(
        self,
        model: C2CModel,
        messages: Conversation | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Begin, with messages that were said before or with none, and with arguments of the chat templates."""
        self.model, self.messages, self.chat_template_kwargs = model, list(messages or []), chat_template_kwargs
        self.kept: FusedPrompt | None = None
        self._answered_at: list[int] = []

    @torch.no_grad()
    def say(self, text: str, **generate_kwargs: Any) -> str:
        """Say something and keep it together with the answer.

        Args:
            text: the user's message.
            generate_kwargs: everything that transformers' `generate` takes; of several answers the first is kept.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt, answered_at = self._encode(messages)
        read = self.model.read(prompt, prefix=self.kept)
        cache = self.model.mode.generation_cache(self.model, read)
        output = generate(self.model.receiver, read.prompt, cache, **generate_kwargs)
        ids: Tensor = output if isinstance(output, Tensor) else output.sequences
        new_ids = ids[:1, read.prompt.num_receiver_tokens :]
        reply = self._text(new_ids)
        entries = cache_entries(cache)
        # Other fusion modes have fused entries there; beams and several answers leave rows.
        is_plain = type(cache) is DynamicCache and len(ids) == len(entries[0].keys) == 1
        self.kept = read.followed_by(new_ids, entries) if is_plain else read
        self.messages, self._answered_at = [*messages, {"role": "assistant", "content": reply}], answered_at
        return reply

    def ask(self, text: str, **generate_kwargs: Any) -> str:
        """What `say` would answer, without keeping anything of it."""
        prompt = self.prompt(text)
        ids: Tensor = self.model.generate(prompt, prefix=self.kept, **generate_kwargs)
        return self._text(ids[:1, prompt.num_receiver_tokens :])

    def _text(self, ids: Tensor) -> str:
        return str(self.model.receiver.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()

    def prompt(self, text: str) -> PromptBatch:
        """What `say` would have read, without anything kept."""
        return self._encode([*self.messages, {"role": "user", "content": text}])[0]

    def _encode(self, messages: Conversation) -> tuple[PromptBatch, list[int]]:
        """The prompt, and the columns from which the receiver answers or answered."""
        prompt, config = self.model.encode([messages], None, [self.chat_template_kwargs]), self.model.fuser.config
        last = prompt.num_receiver_tokens - 1
        if config.fusion_mode != "prefill" or config.span_order == "one_pass":
            return prompt, [last]
        earlier = [] if self.kept is None else [min(n, self._num_shared(prompt) - 1) for n in self._answered_at]
        # A template may write earlier turns anew: an answer that began further on begins where the texts part.
        columns = sorted({column for column in earlier if column >= 0})
        return prompt.without(columns), [*columns, last]

    def _num_shared(self, prompt: PromptBatch) -> int:
        """How many tokens the prompt shares with the last turn's."""
        assert self.kept is not None
        old, new = self.kept.prompt.receiver.input_ids[0].cpu(), prompt.receiver.input_ids[0]
        length = min(len(old), len(new))
        differs = old[:length] != new[:length]
        return int(differs.int().argmax()) if bool(differs.any()) else length
