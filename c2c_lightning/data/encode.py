"""From conversations to token ids: what receiver and sharers read, and which sharer token each receiver token reads.

Strategies, one per sharer (paper A.1.2 for `first` and `longest`):

- `identity`: the sharer reads the receiver's own ids; every prompt token but the last is fused.
- `first`, `longest`: as released, receiver and sharer in one row of slots, see `alignment/released_chat.py`.
- `span`: the sharer reads its own tokens, see `alignment/span_alignment.py`.
- `span_template`: so, and template tokens are fused too, see `alignment/template_alignment.py`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.alignment.retokenization import pad_id
from c2c_lightning.alignment.strategy import TokenAlignment, choose_strategy
from c2c_lightning.data.encode_sharers import EncodedPrompt, Reading, SharerEncoding, assemble
from c2c_lightning.data.messages import (
    Conversation,
    Message,
    Private,
    PromptTemplate,
    check_example,
    check_messages,
    per_sharer,
    without_response,
)
from c2c_lightning.errors import DataError, PromptError

__all__ = [
    "Conversation",
    "EncodedExample",
    "EncodedPrompt",
    "Encoder",
    "Message",
    "SharerEncoding",
    "TokenAlignment",
    "TokenizerSpec",
]

# Part of the fingerprint: raise it when the same input gives other tokens.
_VERSION = 1


@dataclass
class TokenizerSpec:
    """How one model reads a conversation.

    Attributes:
        tokenizer: its tokenizer; it is never changed.
        prompt_template: plain text for a base model without chat template.
    """

    tokenizer: PreTrainedTokenizerBase
    prompt_template: PromptTemplate | None = None

    @property
    def template(self) -> str | None:
        """The plain-text template, if there is one."""
        return None if self.prompt_template is None else self.prompt_template.jinja


@dataclass(frozen=True)
class EncodedExample:
    """A prompt and the response to learn.

    Attributes:
        prompt: the prompt.
        response_ids: the receiver's tokens of the response and of what closes its turn.
    """

    prompt: EncodedPrompt
    response_ids: list[int]


class Encoder:
    """Encodes conversations for a receiver and its sharers. Holds no model, is cheap to copy and to pickle.

    Args:
        receiver: how the receiver reads.
        sharers: how each sharer reads.
        token_alignment: a strategy for all sharers; `auto` is `identity` for sharers whose tokenizer agrees with the
            receiver's, else `longest`.

    Raises:
        AlignmentError: for `identity` with tokenizers that differ, or an unknown strategy.
        PromptError: for a model without chat template and without prompt template.
    """

    def __init__(
        self, receiver: TokenizerSpec, sharers: Sequence[TokenizerSpec], token_alignment: TokenAlignment = "auto"
    ) -> None:
        self._receiver = ChatTokenizer(receiver.tokenizer, receiver.template)
        self.strategies = tuple(choose_strategy(receiver.tokenizer, s.tokenizer, token_alignment) for s in sharers)
        # Under identity the sharer reads what the receiver reads, template included.
        self._sharers = tuple(
            self._receiver if strategy == "identity" else ChatTokenizer(sharer.tokenizer, sharer.template)
            for sharer, strategy in zip(sharers, self.strategies, strict=True)
        )
        self.fingerprint = _fingerprint((receiver, *sharers), self.strategies)

    @property
    def receiver_reader(self) -> ChatTokenizer:
        """The receiver's template and tokenizer."""
        return self._receiver

    @property
    def sharer_readers(self) -> tuple[ChatTokenizer, ...]:
        """Each sharer's template and tokenizer; the receiver's where it reads the receiver's tokens."""
        return self._sharers

    @property
    def receiver_pad_id(self) -> int:
        """The token that fills the receiver's rows in a batch."""
        return pad_id(self._receiver.tokenizer)

    @property
    def sharer_pad_ids(self) -> tuple[int, ...]:
        """The token that fills each sharer's rows in a batch."""
        return tuple(pad_id(sharer.tokenizer) for sharer in self._sharers)

    def encode(self, conversation: Conversation, sharer_conversations: Private = None) -> EncodedPrompt:
        """A prompt, ready for the answer.

        Args:
            conversation: the receiver's messages, the last one is to be answered.
            sharer_conversations: what sharers are told instead; only what stands at the end of both is fused.

        Returns:
            The tokens of all models, with the opening of the assistant's turn.

        Raises:
            PromptError: for a conversation that is no list of messages, or that a template refuses.
        """
        return self.encode_many([conversation], [sharer_conversations])[0]

    def encode_many(
        self, conversations: Sequence[Conversation], sharer_conversations: Sequence[Private] | None = None
    ) -> list[EncodedPrompt]:
        """`encode` for many conversations, with one tokenizer call for all.

        Args:
            conversations: the receiver's conversations.
            sharer_conversations: for each conversation what sharers are told instead, None for the same.

        Returns:
            One prompt per conversation.

        Raises:
            PromptError: as `encode`.
        """
        mine = [check_messages(conversation) for conversation in conversations]
        return self._encode_prompts(mine, self._receiver.read(mine, True), sharer_conversations)

    def encode_example(self, messages: Conversation, sharer_messages: Private = None) -> EncodedExample:
        """A prompt and the response to learn.

        Args:
            messages: the receiver's conversation; the last message is the response.
            sharer_messages: what sharers are told instead, with or without the response.

        Returns:
            The tokens of the prompt for all models, and the response's for the receiver.

        Raises:
            DataError: for messages without prompt or response.
            PromptError: when a template refuses them.
        """
        return self.encode_examples([messages], [sharer_messages])[0]

    def encode_examples(
        self, conversations: Sequence[Conversation], sharer_conversations: Sequence[Private] | None = None
    ) -> list[EncodedExample]:
        """`encode_example` for many conversations, with one tokenizer call for all.

        Args:
            conversations: the receiver's conversations; the last message of each is the response.
            sharer_conversations: for each conversation what sharers are told instead, None for the same.

        Returns:
            One example per conversation.

        Raises:
            DataError: as `encode_example`.
            PromptError: as `encode_example`.
        """
        examples = [check_example(conversation) for conversation in conversations]
        questions = [messages[:-1] for messages in examples]
        opened, full = self._receiver.read(questions, True), self._receiver.read(examples, False)
        private = None if sharer_conversations is None else [without_response(p) for p in sharer_conversations]
        prompts = self._encode_prompts(questions, opened, private)
        return [
            EncodedExample(prompt, self._response_ids(before, whole, len(messages) - 1))
            for prompt, before, whole, messages in zip(prompts, opened, full, examples, strict=True)
        ]

    def _encode_prompts(
        self, mine: list[Conversation], read: list[TokenizedChat], private: Sequence[Private] | None
    ) -> list[EncodedPrompt]:
        told = [[c] * len(self._sharers) for c in mine] if private is None else self._told(mine, private)
        columns = [
            self._read_as(number, mine, read, [theirs[number] for theirs in told])
            for number in range(len(self._sharers))
        ]
        return [
            assemble(self._receiver, mine[row], read[row], [column[row] for column in columns])
            for row in range(len(mine))
        ]

    def _told(self, mine: list[Conversation], private: Sequence[Private]) -> list[list[Conversation]]:
        if len(private) != len(mine):
            raise PromptError(f"There are {len(mine)} conversations, but {len(private)} for the sharers.")
        return [per_sharer(own, theirs, len(self._sharers)) for own, theirs in zip(mine, private, strict=True)]

    def _read_as(
        self, number: int, mine: list[Conversation], read: list[TokenizedChat], told: list[Conversation]
    ) -> list[Reading]:
        """The conversations as a sharer reads them; what the receiver has read is not read again."""
        reader, strategy = self._sharers[number], self.strategies[number]
        again = [row for row, theirs in enumerate(told) if reader is not self._receiver or theirs != mine[row]]
        chats = list(read)
        for row, chat in zip(again, reader.read([told[row] for row in again], True), strict=True):
            chats[row] = chat
        return [Reading(strategy, reader, theirs, chat) for theirs, chat in zip(told, chats, strict=True)]

    def _response_ids(self, opened: TokenizedChat, full: TokenizedChat, response: int) -> list[int]:
        """The receiver's tokens of the response, closing included, such that they continue the prompt's tokens."""
        if full.text.startswith(opened.text):
            start = len(opened.text)
        else:
            # The template writes a finished turn otherwise than it opens one: take the content and what closes it.
            start = min((span.start for span in full.spans if span.message == response), default=len(full.text))
        if start == len(full.text):
            raise DataError("The receiver's chat template does not show the response, so there is nothing to learn.")
        known = len(opened.ids)
        if start == len(opened.text) and full.ids[:known] == opened.ids:
            return list(full.ids[known:])
        # When answering, the prompt's tokens are there first, so no token may reach across the border.
        return self._receiver.token_ids(full.text[start:])


def _fingerprint(specs: Sequence[TokenizerSpec], strategies: Sequence[str]) -> str:
    models = [[tokenizer_fingerprint(spec.tokenizer), spec.template] for spec in specs]
    return hashlib.sha256(json.dumps([_VERSION, models, list(strategies)]).encode()).hexdigest()
