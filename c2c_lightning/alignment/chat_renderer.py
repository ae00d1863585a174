"""Which characters of a rendered chat are which message's content.

Content is never searched for by its text alone: it may repeat, look like template text, or be trimmed. The template is
rendered once with markers in place of the contents, which gives the literal pieces between them; the real rendering is
then read piece by piece and must be used up exactly. Templates whose pieces depend on what is said are rendered once
more with a mark inside each content.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from c2c_lightning.alignment.content_spans import (
    MARK,
    Messages,
    MessageSpan,
    Pieces,
    cut_at_marks,
    grow,
    read,
    with_marks,
    with_marks_inside,
)
from c2c_lightning.errors import PromptError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as text.

    Attributes:
        text: the rendered text.
        spans: where the messages' contents are, in the order of the text; empty contents have none.
    """

    text: str
    spans: tuple[MessageSpan, ...]


class ChatRenderer:
    """Renders conversations with one chat template and says where the messages are.

    Args:
        tokenizer: whose chat template and special tokens are used; it is never changed.
        chat_template: a Jinja template instead of the tokenizer's own.
        template_kwargs: variables for the template.

    Raises:
        PromptError: when there is no template.
    """

    def __init__(
        self, tokenizer: Any, chat_template: str | None = None, template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        if chat_template is None and tokenizer.chat_template is None:
            raise PromptError(
                f"The tokenizer of {tokenizer.name_or_path or type(tokenizer).__name__} has no chat template. Give its "
                "model a `prompt_template` (question_answer, dialogue, plain, or the path of a .jinja file)."
            )
        self._tokenizer = tokenizer
        self._template = chat_template
        # Qwen3 would open a thinking block; other templates do not know the variable.
        self._kwargs = {"enable_thinking": False, **(template_kwargs or {})}
        self._pieces: dict[tuple[object, ...], Pieces] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache behind, so that equal renderers pickle to equal bytes."""
        return {**self.__dict__, "_pieces": {}}

    def render(self, messages: Messages, add_generation_prompt: bool) -> RenderedChat:
        """A conversation as text, with the place of each message.

        A system turn that the template refuses is put in front of the next turn, with a blank line between.

        Args:
            messages: the conversation.
            add_generation_prompt: whether the text ends with the opening of the assistant's turn.

        Returns:
            The text and the spans of the contents.

        Raises:
            PromptError: when the template refuses the conversation.
        """
        try:
            return self._render(messages, add_generation_prompt)
        except TemplateError as problem:
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise PromptError(f"The chat template refuses this conversation: {problem}") from problem
        folded, prefix = _fold_system(messages)
        try:
            return _unfold(self._render(folded, add_generation_prompt), prefix, len(messages[0]["content"]))
        except TemplateError as problem:
            raise PromptError(f"The chat template refuses this conversation: {problem}") from problem

    def _apply(self, messages: Messages, add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **self._kwargs,
        )
        return text

    def _render(self, messages: Messages, add_generation_prompt: bool) -> RenderedChat:
        text = self._apply(messages, add_generation_prompt)
        contents = [message["content"] for message in messages]
        key = (add_generation_prompt, *((message["role"], bool(message["content"])) for message in messages))
        pieces = self._pieces.get(key)
        spans = read(text, pieces, contents) if pieces else None
        if spans is None:  # not seen yet, or a template that tells the time
            pieces = self._pieces[key] = cut_at_marks(self._apply(with_marks(messages), add_generation_prompt))
            spans = read(text, pieces, contents)
        if spans is None:
            spans = self._read_by_marks(text, messages, add_generation_prompt)
        return RenderedChat(text, tuple(span for span in spans if span.end > span.start))

    def _read_by_marks(self, text: str, messages: Messages, add_generation_prompt: bool) -> list[MessageSpan]:
        """For templates that depend on the contents: render again with a mark in the middle of each."""
        contents = [message["content"] for message in messages]
        pieces = cut_at_marks(self._apply(with_marks_inside(messages), add_generation_prompt))
        if "".join(pieces.literals) != text or any(MARK in content for content in contents):
            logger.warning("A chat template changes messages beyond recognition; this conversation is not fused.")
            return []
        spans, position = [], 0
        for number, literal in zip(pieces.messages, pieces.literals, strict=False):
            position += len(literal)
            spans.append(grow(text, position, number, contents[number]))
        return spans


def _fold_system(messages: Messages) -> tuple[list[Mapping[str, Any]], int]:
    """Put the system turn in front of the next one; the second value is how many characters that adds."""
    system, following, *rest = messages
    prefix = system["content"] + "\n\n"
    return [{**following, "content": prefix + following["content"]}, *rest], len(prefix)


def _unfold(chat: RenderedChat, prefix: int, system: int) -> RenderedChat:
    """The spans in terms of the messages before `_fold_system`."""
    spans: list[MessageSpan] = []
    for span in chat.spans:
        if span.message > 0:
            spans.append(MessageSpan(span.message + 1, span.content_start, span.start, span.end))
            continue
        for message, low, high in ((0, 0, system), (1, prefix, span.content_start + span.end - span.start)):
            first = max(low, span.content_start)
            last = min(high, span.content_start + span.end - span.start)
            if first < last:
                shift = span.start - span.content_start
                spans.append(MessageSpan(message, first - low, first + shift, last + shift))
    return RenderedChat(chat.text, tuple(spans))
