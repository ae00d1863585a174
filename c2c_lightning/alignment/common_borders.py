"""`span_cut`: the sharer's tokens are cut where a token of the receiver ends.

A word that is one token of the sharer and several of the receiver cannot be transferred token by token: the sharer's
next token is the whole word. With cut tokens the sharer reads, and so predicts, the receiver's pieces.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from c2c_lightning.alignment.chat_renderer import RenderedChat, TemplateKwargs
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.span_alignment import close_gaps

Token = tuple[int, tuple[int, int]]
"""A token id, its first character, and one past its last."""

Parts = tuple[int, tuple[str, ...]]
"""A token id, and the texts between the borders in it; none for a token that stays whole."""


class CutTokenizer(ChatTokenizer):
    """A sharer's chat tokenizer whose tokens end wherever a token of the receiver ends.

    These tokens stay whole: special ones, those with a part of a character, and those whose parts the vocabulary cannot
    write (some can begin no token without a space, or compose characters with their marks).

    Args:
        receiver: the receiver's chat tokenizer.
        tokenizer: the sharer's tokenizer; this and the next two as in `ChatTokenizer`.
        plain_template: its plain template.
        template_kwargs: arguments of its template.
    """

    def __init__(
        self,
        receiver: ChatTokenizer,
        tokenizer: Any,
        plain_template: str | None = None,
        template_kwargs: TemplateKwargs | None = None,
    ) -> None:
        super().__init__(tokenizer, plain_template, template_kwargs)
        self.receiver = receiver

    def tokenize(self, chats: Sequence[RenderedChat]) -> list[TokenizedChat]:
        """See `ChatTokenizer.tokenize`; one call of the receiver's tokenizer for the borders, and one for all parts."""
        own, theirs = super().tokenize(chats), self.receiver.tokenize(chats)
        parts = [self._parts(*pair) for pair in zip(own, theirs, strict=True)]
        cuts = self._cuts(set(chain.from_iterable(parts)))
        return [_cut(*pair, cuts) for pair in zip(own, parts, strict=True)]

    def _parts(self, own: TokenizedChat, receiver: TokenizedChat) -> list[Parts]:
        """The parts of each token."""
        borders, parts = sorted({end for _, end in receiver.offsets}), []
        for token, (start, end) in zip(own.ids, own.offsets, strict=True):
            inside = borders[bisect_right(borders, start) : bisect_left(borders, end)]
            texts = [own.text[first:last] for first, last in pairwise([start, *inside, end])]
            parts.append((token, tuple(texts) if inside and token not in self._special_ids else ()))
        return parts

    def _cuts(self, parts: Iterable[Parts]) -> dict[Parts, list[Token]]:
        """The tokens that replace a token, in characters from its first; none for a token that stays whole."""
        alone = self._tokens(sorted({text for _, texts in parts for text in texts}))
        cuts: dict[Parts, list[Token]] = {}
        for whole, texts in parts:
            tokens: list[Token] = []
            begin = 0
            for text in texts:
                tokens += [(token, (begin + first, begin + last)) for token, (first, last) in alone[text]]
                begin += len(text)
            is_cut = (
                texts and all(alone[text] for text in texts) and self._is_same(whole, *(token for token, _ in tokens))
            )
            cuts[whole, texts] = tokens if is_cut else []
        return cuts

    def _tokens(self, texts: Sequence[str]) -> dict[str, list[Token]]:
        """The tokens of each text alone; the last one has all characters that offsets leave out at the end."""
        if not texts:
            return {}
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens = {}
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ends = [*offsets[:-1], (offsets[-1][0], len(text))] if offsets else []
            tokens[text] = list(zip(ids, close_gaps(ends), strict=True))
        return tokens

    def _is_same(self, whole: int, *cut: int) -> bool:
        """Whether tokens say the same as one token, behind another one: at the beginning a space may be left out.

        A token with a part of a character never does, since its parts have the characters whole.
        """
        one, several = (
            self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for ids in ([whole, whole], [whole, *cut])
        )
        return bool(one == several)


def _cut(chat: TokenizedChat, parts: Iterable[Parts], cuts: Mapping[Parts, Sequence[Token]]) -> TokenizedChat:
    """A conversation with its tokens replaced."""
    tokens: list[Token] = []
    for of_token, (start, end) in zip(parts, chat.offsets, strict=True):
        replaced = cuts[of_token] or [(of_token[0], (0, end - start))]
        tokens += [(token, (start + first, start + last)) for token, (first, last) in replaced]
    ids, offsets = zip(*tokens, strict=True) if tokens else ((), ())
    return TokenizedChat(chat.text, chat.spans, ids, offsets)
