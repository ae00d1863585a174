"""A conversation as one model reads it: its own template, its own tokens, and the characters of each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from c2c_lightning.alignment.chat_renderer import ChatRenderer, RenderedChat
from c2c_lightning.alignment.content_spans import Messages, MessageSpan
from c2c_lightning.alignment.span_alignment import close_gaps
from c2c_lightning.errors import AlignmentError


@dataclass(frozen=True)
class TokenizedChat(RenderedChat):
    """A rendered conversation with its tokens.

    Attributes:
        ids: the token ids.
        offsets: `(start, end)` of each token in characters of the text, without gaps.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def token_range(self, start: int, end: int) -> tuple[int, int]:
        """The tokens that overlap some characters.

        Args:
            start: first character of the text.
            end: one past the last character.

        Returns:
            First token and one past the last token.
        """
        first = 0
        while first < len(self.offsets) and self.offsets[first][1] <= start:
            first += 1
        last = first
        while last < len(self.offsets) and self.offsets[last][0] < end:
            last += 1
        return first, last


class ChatTokenizer:
    """Reads conversations as one model does.

    Args:
        tokenizer: a fast tokenizer; it is never changed.
        plain_template: a Jinja template for a base model without chat template; the begin token is then written only
            if the tokenizer writes it by itself.

    Raises:
        PromptError: when there is no template at all.
        AlignmentError: when the tokenizer cannot tell the characters of its tokens.
    """

    def __init__(self, tokenizer: Any, plain_template: str | None = None) -> None:
        if not tokenizer.is_fast:
            raise AlignmentError(
                f"{type(tokenizer).__name__} cannot tell which characters its tokens stand for. Load the model's fast "
                "tokenizer (`AutoTokenizer.from_pretrained(...)` with a tokenizer.json)."
            )
        self.tokenizer = tokenizer
        kwargs = {}
        if plain_template is not None and not _adds_bos(tokenizer):
            kwargs["bos_token"] = ""
        self.renderer = ChatRenderer(tokenizer, plain_template, kwargs)

    def read(self, conversations: Sequence[Messages], add_generation_prompt: bool) -> list[TokenizedChat]:
        """Render and tokenise conversations, all in one call of the tokenizer.

        Args:
            conversations: the conversations.
            add_generation_prompt: whether the texts end with the opening of the assistant's turn.

        Returns:
            Each conversation with its tokens.

        Raises:
            PromptError: when the template refuses a conversation.
        """
        return self.tokenize([self.renderer.render(messages, add_generation_prompt) for messages in conversations])

    def read_prefilled(self, messages: Messages) -> TokenizedChat:
        """All messages but the last with the opening of the assistant's turn, then the last message's bare text.

        Args:
            messages: the conversation.

        Returns:
            The tokens, without the closing of the last turn.
        """
        opened = self.renderer.render(messages[:-1], True)
        text = opened.text + messages[-1]["content"]
        span = MessageSpan(len(messages) - 1, 0, len(opened.text), len(text))
        spans = (*opened.spans, span) if span.end > span.start else opened.spans
        return self.tokenize([RenderedChat(text, spans)])[0]

    def tokenize(self, chats: Sequence[RenderedChat]) -> list[TokenizedChat]:
        """Tokens of rendered conversations; special tokens are what the template wrote, and no others.

        Args:
            chats: the rendered conversations.

        Returns:
            The same with their tokens.
        """
        if not chats:
            return []
        encoded = self.tokenizer(
            [chat.text for chat in chats],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [
            TokenizedChat(chat.text, chat.spans, tuple(ids), tuple(close_gaps(offsets)))
            for chat, ids, offsets in zip(chats, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def token_ids(self, text: str) -> list[int]:
        """Tokens of bare text, without any that the tokenizer would add by itself.

        Args:
            text: the text.

        Returns:
            The token ids.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def _adds_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
