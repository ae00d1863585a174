"""`span_cut`: the sharer's tokens are cut where a token of the receiver ends.

A word that is one token of the sharer and several of the receiver cannot be transferred token by token: the sharer's
next token is the whole word. With cut tokens the sharer reads, and so predicts, the receiver's pieces.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from c2c_lightning.alignment.chat_renderer import RenderedChat, TemplateKwargs
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.span_alignment import close_gaps

Offsets = tuple[int, int]
"""The first character, and one past the last."""

Token = tuple[int, Offsets]
"""A token id with its characters."""


def cut_points(offsets: Offsets, borders: Sequence[int]) -> list[int]:
    """The ends of the parts of one token, given borders in order.

    Example:
        `nicholson` with borders behind `nich` and behind the word:

        >>> cut_points((5, 14), [9, 14])
        [5, 9, 14]
    """
    start, end = offsets
    return [start, *(border for border in borders if start < border < end), end]


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
        texts = {chat.text[slice(*part)] for chat, of_chat in zip(own, parts, strict=True) for part in chain(*of_chat)}
        pieces = self._tokens(sorted(texts))
        same: dict[tuple[int, ...], bool] = {}
        return [self._cut(chat, of_chat, pieces, same) for chat, of_chat in zip(own, parts, strict=True)]

    def _parts(self, own: TokenizedChat, receiver: TokenizedChat) -> list[list[Offsets]]:
        """For each token the characters of its parts; none for a token that stays whole."""
        borders, begin = sorted({end for _, end in receiver.offsets}), 0
        parts: list[list[Offsets]] = []
        for token, (start, end) in zip(own.ids, own.offsets, strict=True):
            while begin < len(borders) and borders[begin] <= start:
                begin += 1
            stop = begin
            while stop < len(borders) and borders[stop] < end:
                stop += 1
            is_cut = stop > begin and token not in self._special_ids
            parts.append(list(pairwise(cut_points((start, end), borders[begin:stop]))) if is_cut else [])
        return parts

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

    def _cut(
        self,
        chat: TokenizedChat,
        parts: Iterable[Sequence[Offsets]],
        pieces: dict[str, list[Token]],
        same: dict[tuple[int, ...], bool],
    ) -> TokenizedChat:
        """A conversation with its tokens cut into parts; `same` keeps what has been compared."""
        tokens: list[Token] = []
        for whole, of_token in zip(zip(chat.ids, chat.offsets, strict=True), parts, strict=True):
            cut = [
                (token, (start + first, start + last))
                for start, end in of_token
                for token, (first, last) in pieces[chat.text[start:end]]
            ]
            key = whole[0], *(token for token, _ in cut)
            if key not in same:
                same[key] = bool(cut) and self._is_same(*key)
            tokens += cut if same[key] and all(pieces[chat.text[start:end]] for start, end in of_token) else [whole]
        return TokenizedChat(
            chat.text, chat.spans, tuple(token for token, _ in tokens), tuple(span for _, span in tokens)
        )

    def _is_same(self, whole: int, *cut: int) -> bool:
        """Whether tokens say the same as one token, behind another one: at the beginning a space may be left out.

        A token with a part of a character never does, since its parts have the characters whole.
        """
        one, several = (
            self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for ids in ([whole, whole], [whole, *cut])
        )
        return bool(one == several)
