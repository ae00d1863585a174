"""Conversations as the tokens of one model: its chat template, its tokenizer, and the characters of each token."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from c2c_lightning.alignment.chat_renderer import ChatRenderer, RenderedChat, TemplateKwargs
from c2c_lightning.alignment.content_spans import Messages, MessageSpan, content_text
from c2c_lightning.alignment.span_alignment import close_gaps
from c2c_lightning.errors import AlignmentError, PromptError


@dataclass(frozen=True)
class TokenizedChat(RenderedChat):
    """A rendered conversation with its token ids, and `(start, end)` of each in characters of the text, no gaps."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def token_range(self, start: int, end: int) -> tuple[int, int]:
        """The tokens that overlap the characters [start, end): first token, and one past the last.

        Example:
            >>> TokenizedChat("user: Hi", (), (7, 8, 9), ((0, 4), (4, 6), (6, 8))).token_range(5, 8)
            (1, 3)
        """
        first = bisect_right(self.offsets, start, key=lambda offsets: offsets[1])
        last = first
        while last < len(self.offsets) and self.offsets[last][0] < end:
            last += 1
        return first, last


class ChatTokenizer:
    """Renders and tokenizes conversations for one model; the tokenizer must be a fast one, and is never changed.

    A base model without chat template has a `plain_template`; the begin token is then written only if the tokenizer
    adds one by itself. `template_kwargs` are for every conversation.
    """

    def __init__(
        self, tokenizer: Any, plain_template: str | None = None, template_kwargs: TemplateKwargs | None = None
    ) -> None:
        if not tokenizer.is_fast:
            raise AlignmentError(
                f"{type(tokenizer).__name__} gives no character offsets of its tokens. Load the model's fast tokenizer "
                "(`AutoTokenizer.from_pretrained(...)` with a tokenizer.json)."
            )
        self.tokenizer = tokenizer
        # Added tokens may be special without a role, such as the turn marks of many chat templates.
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = {*tokenizer.all_special_ids, *(token for token, content in added if content.special)}
        kwargs = dict(template_kwargs or {})
        if plain_template is not None and not _adds_bos(tokenizer):
            # GPT-2 names a begin token, for example, but its tokenizer never writes one.
            kwargs.setdefault("bos_token", "")
        self.renderer = ChatRenderer(tokenizer, plain_template, kwargs)

    @cached_property
    def next_turn(self) -> str:
        """Text that begins the user's turn after an answer, for a template that marks turns by text; else empty.

        No end token need follow the answers of a base model: it writes the next turns, too.
        """
        answered = [("user", "one"), ("assistant", "two"), ("user", "three")]
        try:
            chat = self.renderer.render([{"role": role, "content": text} for role, text in answered], False)
        except PromptError:
            return ""
        ends = [span.end for span in chat.spans if span.message == 1]
        starts = [span.start for span in chat.spans if span.message == 2]
        if not ends or not starts:  # a template may leave turns out
            return ""
        text = chat.text[ends[-1] : starts[0]].rstrip()
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return "" if self._special_ids.intersection(ids) else text

    def encode(
        self,
        conversations: Sequence[Messages],
        add_generation_prompt: bool,
        template_kwargs: Sequence[TemplateKwargs | None] | None = None,
    ) -> list[TokenizedChat]:
        """Render and tokenize conversations, with one call of the tokenizer; see `ChatRenderer.render`."""
        kwargs = template_kwargs or [None] * len(conversations)
        with self.renderer.time_limit(len(conversations)):
            chats = [
                self.renderer.render(messages, add_generation_prompt, of_row)
                for messages, of_row in zip(conversations, kwargs, strict=True)
            ]
        return self.tokenize(chats)

    def encode_prefilled(self, messages: Messages) -> TokenizedChat:
        """All messages but the last with the opening of the assistant's turn, then the bare text of the last message.

        The closing of the last turn is left out.
        """
        opened = self.renderer.render(messages[:-1], True)
        text = opened.text + content_text(messages[-1])
        span = MessageSpan(len(messages) - 1, 0, len(opened.text), len(text))
        spans = (*opened.spans, span) if span.end > span.start else opened.spans
        return self.tokenize([RenderedChat(text, spans)])[0]

    def tokenize(self, chats: Sequence[RenderedChat]) -> list[TokenizedChat]:
        """Tokenize rendered conversations. The tokenizer adds no special tokens: templates write them."""
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
        """Token ids of bare text, without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def with_end_token(self, ids: list[int]) -> list[int]:
        """Token ids of a finished turn, with the end token added where the template writes no special token at its end.

        Without an end token nothing teaches the model to stop (GLM-4 and Vicuna templates).
        """
        end = self.tokenizer.eos_token_id
        # White space may follow the closing, as the line break after `<|im_end|>`.
        last = next((token for token in reversed(ids) if self.tokenizer.decode([token]).strip()), None)
        return ids if end is None or last in self._special_ids else [*ids, int(end)]


def _adds_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
