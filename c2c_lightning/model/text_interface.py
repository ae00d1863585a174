"""Conversations in, answers out: how a fused model is spoken to."""

from collections.abc import Sequence
from typing import Any

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import Encoder, Kwargs
from c2c_lightning.data.messages import Conversation
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.frozen_lm import FrozenLM


class TextInterface:
    """The part of a fused model that knows chat templates and text; the method itself knows token ids only.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        fuser: the trained part.
    """

    receiver: FrozenLM
    sharers: tuple[FrozenLM, ...]
    fuser: Fuser
    generate: Any
    _encoder: tuple[str, Encoder] | None = None

    @property
    def encoder(self) -> Encoder:
        """Encodes conversations for these models, with the configured token alignment."""
        alignment = self.fuser.config.token_alignment
        if self._encoder is None or self._encoder[0] != alignment:
            readings = [sharer.reading for sharer in self.sharers]
            self._encoder = alignment, Encoder(self.receiver.reading, readings, alignment)
        return self._encoder[1]

    def encode(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[Any] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> PromptBatch:
        """Conversations as a batch of prompts: chat templates, alignment, left padding.

        Args:
            conversations: each a list of messages that ends with the one to answer.
            sharer_conversations: for each what the sharers read instead (private context), or None for the same.
            chat_template_kwargs: for each the arguments of the chat templates (`tools`, `documents`, ...).
        """
        prompts = self.encoder.encode_many(conversations, sharer_conversations, chat_template_kwargs)
        return collate_prompts(prompts, self.encoder.receiver_pad_id, self.encoder.sharer_pad_ids)

    def chat(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[Any] | None = None,
        chat_template_kwargs: Kwargs | None = None,
        **generate_kwargs: Any,
    ) -> list[str]:
        """Answers to conversations, as text.

        Args:
            conversations: each a list of messages that ends with the one to answer.
            sharer_conversations: for each what the sharers read instead, or None for the same.
            chat_template_kwargs: for each the arguments of the chat templates.
            generate_kwargs: everything that transformers' `generate` takes.
        """
        prompt = self.encode(conversations, sharer_conversations, chat_template_kwargs)
        ids = self.generate(prompt, **generate_kwargs)
        new = ids[:, prompt.num_receiver_tokens :]
        texts: list[str] = self.receiver.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]
