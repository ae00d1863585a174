"""Renders conversations with a chat template and finds the characters of each message's content.

Contents are not searched for by their text alone: it may repeat, look like template text, or be trimmed. The template
is also rendered with placeholders in place of the contents, which gives the literals between them; literals and
contents must then make up the real rendering exactly. Templates whose literals depend on the contents are rendered a
third time, with a placeholder inside each content.
"""

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from c2c_lightning.alignment.content_spans import (
    PLACEHOLDER,
    Messages,
    MessageSpan,
    TemplatePieces,
    content_text,
    expand_from_middle,
    locate_contents,
    split_at_placeholders,
    with_placeholders,
    with_placeholders_inside,
)
from c2c_lightning.alignment.time_limit import time_limit
from c2c_lightning.errors import PromptError

logger = logging.getLogger(__name__)

TemplateKwargs = Mapping[str, Any]
"""Arguments of `apply_chat_template`: `tools`, `documents`, and variables such as `enable_thinking`."""

DEFAULT_KWARGS: TemplateKwargs = {"enable_thinking": False}
"""As in the released code: Qwen3 answers without a reasoning block. Other templates do not use the variable."""

RENDER_SECONDS = 5.0
"""Time limit for one rendering; templates come with models, and their loops may not end."""


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as text, and the contents of its messages in its order; empty contents have no span."""

    text: str
    spans: tuple[MessageSpan, ...]


class ChatRenderer:
    """Renders conversations with the chat template of one model; the tokenizer is never changed.

    A `chat_template` replaces that of the tokenizer. `template_kwargs` are for every conversation, in addition to
    `DEFAULT_KWARGS`. A missing or empty template, or one that does not end, is a `PromptError`.
    """

    def __init__(
        self, tokenizer: Any, chat_template: str | None = None, template_kwargs: TemplateKwargs | None = None
    ) -> None:
        self._tokenizer, self._template = tokenizer, chat_template
        self._kwargs = {**DEFAULT_KWARGS, **(template_kwargs or {})}
        self._pieces: dict[tuple[object, ...], TemplatePieces] = {}
        source = tokenizer.chat_template if chat_template is None else chat_template
        if not source or not str(source).strip():
            state = "no chat template" if source is None else "an empty chat template"
            raise PromptError(
                f"The tokenizer of {self._name} has {state}. Give its model a `prompt_template` (question_answer, "
                "dialogue, plain, or the path of a .jinja file)."
            )
        self._unused_warned: set[str] = set()
        self._source = str(source)
        self._warn_unused((template_kwargs or {}).keys() - {"bos_token"})
        self._check_end()

    @property
    def _name(self) -> str:
        return str(self._tokenizer.name_or_path or type(self._tokenizer).__name__)

    def __getstate__(self) -> dict[str, Any]:
        """Leave caches out, so that equal renderers pickle to equal bytes."""
        return {**self.__dict__, "_pieces": {}, "_unused_warned": set()}

    def _check_end(self) -> None:
        # A template whose loop does not end would otherwise stop the first batch without a message.
        with self.time_limit(1):
            try:
                self._apply([{"role": "user", "content": "?"}], True, {})
            except PromptError:
                logger.debug("the chat template of %s refuses a lone user message", self._name)

    def time_limit(self, num_conversations: int) -> Any:
        """A context in which so many conversations can be rendered; a `PromptError` at the end of the time."""
        seconds = RENDER_SECONDS + 0.05 * num_conversations
        message = f"The chat template of {self._name} did not end within {seconds:.0f} s. Check its loops."
        return time_limit(seconds, PromptError(message))

    def render(
        self, messages: Messages, add_generation_prompt: bool, template_kwargs: TemplateKwargs | None = None
    ) -> RenderedChat:
        """Render a conversation, with or without the opening of the assistant's turn at its end.

        `template_kwargs` override those of the model. A system message that the template refuses is put in front of the
        next message, with a blank line between.
        """
        kwargs = template_kwargs or {}
        self._warn_unused(kwargs.keys())
        try:
            return self._render(messages, add_generation_prompt, kwargs)
        except PromptError:
            # Templates such as those of Gemma and Mistral refuse the role `system`.
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise
        folded, prefix = _fold_system(messages)
        chat = self._render(folded, add_generation_prompt, kwargs)
        return _unfold(chat, prefix, len(content_text(messages[0])))

    def _warn_unused(self, names: Set[str]) -> None:
        for name in sorted(names - self._unused_warned):
            self._unused_warned.add(name)
            if name not in self._source:
                logger.warning("The chat template of %s does not use `%s`; it is ignored.", self._name, name)

    def _apply(self, messages: Messages, add_generation_prompt: bool, kwargs: TemplateKwargs) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **{**self._kwargs, **kwargs},
            )
        except Exception as problem:  # a template is foreign code that may raise anything
            raise PromptError(f"The chat template refuses this conversation: {problem}") from problem
        return text

    def _render(self, messages: Messages, add_generation_prompt: bool, kwargs: TemplateKwargs) -> RenderedChat:
        text = self._apply(messages, add_generation_prompt, kwargs)
        try:
            spans = self._locate(text, messages, add_generation_prompt, kwargs)
        except PromptError:  # the template refuses the placeholders
            spans = None
        if spans is None:
            logger.warning("A chat template changes messages beyond recognition; this conversation is not fused.")
        return RenderedChat(text, tuple(span for span in spans or () if span.end > span.start))

    def _locate(
        self, text: str, messages: Messages, add_generation_prompt: bool, kwargs: TemplateKwargs
    ) -> list[MessageSpan] | None:
        contents = [content_text(message) for message in messages]
        # Templates branch on roles and on empty contents, so the literals are cached by these.
        key = (add_generation_prompt, *((m["role"], bool(c)) for m, c in zip(messages, contents, strict=True)))
        pieces = self._pieces.get(key)
        spans = locate_contents(text, pieces, contents) if pieces else None
        if spans is not None:
            return spans
        # Not cached yet, or literals that depend on the date, on tools or on tool calls.
        marked = self._apply(with_placeholders(messages), add_generation_prompt, kwargs)
        pieces = self._pieces[key] = split_at_placeholders(marked)
        spans = locate_contents(text, pieces, contents)
        if spans is not None:
            return spans
        marked = self._apply(with_placeholders_inside(messages), add_generation_prompt, kwargs)
        pieces = split_at_placeholders(marked)
        # The placeholders are inside the contents here, so what they divide must be the text itself.
        if "".join(pieces.literals) != text or any(PLACEHOLDER in content for content in contents):
            return None
        return _expand_all(text, pieces, contents)


def _expand_all(text: str, pieces: TemplatePieces, contents: list[str]) -> list[MessageSpan]:
    spans, position = [], 0
    for number, literal in zip(pieces.messages, pieces.literals, strict=False):
        position += len(literal)
        spans.append(expand_from_middle(text, position, number, contents[number]))
    return spans


def _fold_system(messages: Messages) -> tuple[list[Mapping[str, Any]], int]:
    """Put the system message in front of the next one; the second value is the number of characters added."""
    system, following, *rest = messages
    prefix = content_text(system) + "\n\n"
    return [{**following, "content": prefix + content_text(following)}, *rest], len(prefix)


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
