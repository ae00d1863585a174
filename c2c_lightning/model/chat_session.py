"""A conversation that reuses the caches of its earlier turns."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fused_prompt import FusedPrompt


class ChatSession:
    """One growing conversation; receiver and sharers compute the new tokens of each turn only.

    Every answer equals the one for the whole conversation without any cache, encoded as in `prompt`. That encoding is
    `C2CModel.encode`, with one difference where sharers read the receiver's own tokens (`identity`) and spans are
    `sectioned`: an answered turn ends a span, so that later turns are computed on its fused entries. In one span the
    whole conversation, answers included, would have to be computed without fusion first; `span_order: one_pass` does
    that, and prefills answers a second time.

    Attributes:
        model: the fused model.
        messages: the conversation so far.
        cached: the fused prompt of the last turn, with its answer.
    """

    def __init__(
        self,
        model: C2CModel,
        messages: Conversation | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Begin with earlier messages or with none, and with arguments of the chat templates."""
        self.model, self.messages, self.chat_template_kwargs = model, list(messages or []), chat_template_kwargs
        self.cached: FusedPrompt | None = None
        self._answer_columns: list[int] = []

    @torch.no_grad()
    def send(self, text: str, **generate_kwargs: Any) -> str:
        """Answer a user message, and append both to the conversation.

        A conversation whose answer fails or is interrupted stays as it was.

        Args:
            text: the user's message.
            generate_kwargs: all arguments of transformers' `generate`; of several answers the first is kept.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt, answer_columns = self._encode(messages)
        fused = self.model.prefill(prompt, prefix=self.cached)
        cache = self.model.mode.generation_cache(self.model, fused)
        output = self.model.continue_from(fused, cache, **generate_kwargs)
        ids: Tensor = output if isinstance(output, Tensor) else output.sequences
        new_ids = ids[:1, fused.prompt.num_receiver_tokens :]
        reply, entries = self._text(new_ids), cache_entries(cache)
        # Other fusion modes hold fused entries of the answer; beams and several answers leave several rows.
        is_plain = isinstance(cache, DynamicCache) and len(ids) == len(entries[0].keys) == 1
        self.cached = fused.with_response(new_ids, entries) if is_plain else fused
        self.messages, self._answer_columns = [*messages, {"role": "assistant", "content": reply}], answer_columns
        return reply

    def peek(self, text: str, **generate_kwargs: Any) -> str:
        """The answer that `send` would give; the conversation stays as it is."""
        prompt = self.prompt(text)
        output = self.model.generate(prompt, prefix=self.cached, **generate_kwargs)
        ids: Tensor = output if isinstance(output, Tensor) else output.sequences
        return self._text(ids[:1, prompt.num_receiver_tokens :])

    def prompt(self, text: str) -> PromptBatch:
        """The prompt of the next turn with the user message `text`."""
        return self._encode([*self.messages, {"role": "user", "content": text}])[0]

    def _text(self, ids: Tensor) -> str:
        return str(self.model.receiver.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()

    def _encode(self, messages: Conversation) -> tuple[PromptBatch, list[int]]:
        """The prompt, and the columns in front of which the receiver's answers begin."""
        prompt, config = self.model.encode([messages], None, [self.chat_template_kwargs]), self.model.fuser.config
        last = prompt.num_receiver_tokens - 1
        if self.model.mode.fuses_last_prompt_token or config.span_order == "one_pass":
            return prompt, [last]
        # A template may render earlier turns differently: such an answer begins where the tokens differ.
        shared = self._num_shared_tokens(prompt)
        columns = sorted({min(n, shared - 1) for n in self._answer_columns if min(n, shared - 1) >= 0})
        return prompt.without(columns), [*columns, last]

    def _num_shared_tokens(self, prompt: PromptBatch) -> int:
        """Number of leading tokens that the prompt shares with the last turn's."""
        if self.cached is None:
            return 0
        old, new = self.cached.prompt.receiver.input_ids[0].cpu(), prompt.receiver.input_ids[0]
        length = min(len(old), len(new))
        differs = old[:length] != new[:length]
        return int(differs.int().argmax()) if bool(differs.any()) else length
