"""From conversations to token ids of receiver and sharers, and the sharer token that each receiver token is fused with.

Strategies, one per sharer (paper A.1.2 for `first` and `longest`):

- `identity`: the sharer gets the receiver's tokens; every prompt token but the last is fused.
- `first`, `longest`: as released, see `alignment/released_chat.py`.
- `span`: the sharer keeps its tokens, see `alignment/span_alignment.py`.
- `span_template`: as `span`, and template tokens are fused too, see `alignment/template_alignment.py`.
- `span_cut`: as `span`, and the sharer's tokens end where the receiver's do, see `alignment/common_borders.py`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from c2c_lightning.alignment.chat_renderer import TemplateKwargs
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.common_borders import CutTokenizer
from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.alignment.retokenization import pad_id
from c2c_lightning.alignment.strategy import Strategy, TokenAlignment, choose_strategy
from c2c_lightning.data.encode_response import response_ids
from c2c_lightning.data.encode_sharers import EncodedPrompt, SharerEncoding, SharerPrompt, encode_prompt
from c2c_lightning.data.messages import (
    Conversation,
    Message,
    SharerConversations,
    check_example,
    check_messages,
    per_sharer,
    without_response,
)
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import PromptError

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
_VERSION = 2

Kwargs = Sequence[TemplateKwargs | None]
"""Chat template arguments, one entry per conversation."""


@dataclass
class TokenizerSpec:
    """How conversations become tokens of one model.

    Attributes:
        tokenizer: its tokenizer; it is never changed.
        prompt_template: plain text for a base model without chat template.
        chat_template_kwargs: arguments of the chat template for every conversation, such as
            `{"enable_thinking": True}` (default False, as released).
    """

    tokenizer: PreTrainedTokenizerBase
    prompt_template: PromptTemplate | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def template(self) -> str | None:
        """The plain-text template, if there is one."""
        return None if self.prompt_template is None else self.prompt_template.jinja

    @property
    def chat_tokenizer(self) -> ChatTokenizer:
        """Renders and tokenizes conversations for this model."""
        return ChatTokenizer(self.tokenizer, self.template, self.chat_template_kwargs)


@dataclass(frozen=True)
class EncodedExample:
    """A prompt and the response to learn: the receiver's tokens of the response and of the closing of its turn."""

    prompt: EncodedPrompt
    response_ids: list[int]


class Encoder:
    """Encodes conversations for a receiver and its sharers. Holds no model, is cheap to copy and to pickle.

    Args:
        receiver: the receiver's tokenizer and templates.
        sharers: those of each sharer.
        token_alignment: a strategy for all sharers; `auto` is `identity` for sharers whose tokenizer agrees with the
            receiver's, else `longest`.

    Raises:
        AlignmentError: for `identity` with tokenizers that differ, or an unknown strategy.
        PromptError: for a model without chat template and without prompt template.
    """

    def __init__(
        self, receiver: TokenizerSpec, sharers: Sequence[TokenizerSpec], token_alignment: TokenAlignment = "auto"
    ) -> None:
        self.receiver_tokenizer = receiver.chat_tokenizer
        self.strategies = tuple(choose_strategy(receiver.tokenizer, s.tokenizer, token_alignment) for s in sharers)
        self.sharer_tokenizers = tuple(map(self._sharer_tokenizer, sharers, self.strategies))
        self.fingerprint = _fingerprint((receiver, *sharers), self.strategies)

    def _sharer_tokenizer(self, sharer: TokenizerSpec, strategy: Strategy) -> ChatTokenizer:
        """Under `identity` the sharer gets the receiver's tokens, template included."""
        if strategy == "identity":
            return self.receiver_tokenizer
        if strategy == "span_cut":
            own = (sharer.tokenizer, sharer.template, sharer.chat_template_kwargs)
            return CutTokenizer(self.receiver_tokenizer, *own)
        return sharer.chat_tokenizer

    @property
    def receiver_pad_id(self) -> int:
        """The padding token of the receiver's rows in a batch."""
        return pad_id(self.receiver_tokenizer.tokenizer)

    @property
    def sharer_pad_ids(self) -> tuple[int, ...]:
        """The padding token of each sharer's rows in a batch."""
        return tuple(pad_id(sharer.tokenizer) for sharer in self.sharer_tokenizers)

    def encode(
        self,
        conversation: Conversation,
        sharer_conversations: SharerConversations = None,
        chat_template_kwargs: TemplateKwargs | None = None,
    ) -> EncodedPrompt:
        """Encode a prompt, with the opening of the assistant's turn.

        Args:
            conversation: the receiver's messages; the last one is to be answered.
            sharer_conversations: other conversations for sharers (private context); only their common suffix with
                the receiver's is fused.
            chat_template_kwargs: arguments of the chat templates for this conversation (`tools`, `documents`,
                `enable_thinking`, ...); they override those of the models.

        Raises:
            PromptError: for a value that is no conversation, or one that a template refuses.
        """
        return self.encode_many([conversation], [sharer_conversations], [chat_template_kwargs])[0]

    def encode_many(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[SharerConversations] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> list[EncodedPrompt]:
        """`encode` for many conversations, with one tokenizer call per model; all arguments have one entry for each."""
        if not conversations:
            raise PromptError("There are no conversations to encode. Give at least one.")
        mine = [check_messages(conversation) for conversation in conversations]
        kwargs = _one_each("chat_template_kwargs", chat_template_kwargs, len(mine))
        chats = self.receiver_tokenizer.encode(mine, True, kwargs)
        return self._encode_prompts(mine, chats, sharer_conversations, kwargs)

    def encode_example(
        self,
        messages: Conversation,
        sharer_messages: SharerConversations = None,
        chat_template_kwargs: TemplateKwargs | None = None,
    ) -> EncodedExample:
        """Encode a prompt and the response to learn, which is the last message; see `encode`.

        Raises:
            DataError: for messages without prompt or response, a response of weight 0, or reasoning that does not
                fit the opening of the assistant's turn.
            PromptError: when a template refuses the messages.
        """
        return self.encode_examples([messages], [sharer_messages], [chat_template_kwargs])[0]

    def encode_examples(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[SharerConversations] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> list[EncodedExample]:
        """`encode_example` for many conversations; all arguments have one entry for each."""
        examples = [check_example(conversation) for conversation in conversations]
        kwargs = _one_each("chat_template_kwargs", chat_template_kwargs, len(examples))
        questions = [messages[:-1] for messages in examples]
        # Prompt and whole conversation are rendered apart: the response is what the second adds.
        opened = self.receiver_tokenizer.encode(questions, True, kwargs)
        finished = self.receiver_tokenizer.encode(examples, False, kwargs)
        private = None if sharer_conversations is None else [without_response(p) for p in sharer_conversations]
        prompts = self._encode_prompts(questions, opened, private, kwargs)
        return [
            EncodedExample(prompt, response_ids(self.receiver_tokenizer, before, whole, messages))
            for prompt, before, whole, messages in zip(prompts, opened, finished, examples, strict=True)
        ]

    def _encode_prompts(
        self,
        mine: list[Conversation],
        chats: list[TokenizedChat],
        private: Sequence[SharerConversations] | None,
        kwargs: Kwargs,
    ) -> list[EncodedPrompt]:
        if not all(chat.ids for chat in chats):
            raise PromptError("The receiver's chat template makes no tokens of this conversation, so it has no prompt.")
        private = _one_each("conversations for the sharers", private, len(mine))
        per_row = [per_sharer(*pair, len(self.strategies)) for pair in zip(mine, private, strict=True)]
        sharers = [
            self._sharer_prompts(number, mine, chats, [row[number] for row in per_row], kwargs)
            for number in range(len(self.strategies))
        ]
        return [
            encode_prompt(self.receiver_tokenizer, mine[row], chats[row], [prompts[row] for prompts in sharers])
            for row in range(len(mine))
        ]

    def _sharer_prompts(
        self,
        number: int,
        mine: list[Conversation],
        chats: list[TokenizedChat],
        theirs: list[Conversation],
        kwargs: Kwargs,
    ) -> list[SharerPrompt]:
        """The prompts of one sharer; where they are the receiver's, its tokens are used."""
        tokenizer, strategy = self.sharer_tokenizers[number], self.strategies[number]
        is_other = tokenizer is not self.receiver_tokenizer
        # Prompts that are the receiver's are not tokenized again.
        rows = [row for row, messages in enumerate(theirs) if is_other or messages != mine[row]]
        encoded = tokenizer.encode([theirs[row] for row in rows], True, [kwargs[row] for row in rows])
        by_row = dict(zip(rows, encoded, strict=True))
        return [
            SharerPrompt(strategy, tokenizer, messages, by_row.get(row, chats[row]))
            for row, messages in enumerate(theirs)
        ]


def _one_each(name: str, values: Sequence[Any] | None, count: int) -> Sequence[Any]:
    if values is None:
        return [None] * count
    if isinstance(values, Mapping):
        raise PromptError(f"Give a list of {name}, one entry for each conversation, not a mapping.")
    if len(values) != count:
        raise PromptError(f"There are {count} conversations, but {len(values)} {name}.")
    return values


def _fingerprint(specs: Sequence[TokenizerSpec], strategies: Sequence[str]) -> str:
    models = [[tokenizer_fingerprint(s.tokenizer), s.template, s.chat_template_kwargs] for s in specs]
    content = json.dumps([_VERSION, models, list(strategies)], default=str)
    return hashlib.sha256(content.encode()).hexdigest()
