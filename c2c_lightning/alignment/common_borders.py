"""`span_cut`: the sharer's tokens are cut where a token of the receiver ends.

A word that is one token of the sharer and several of the receiver cannot be transferred token by token: the sharer's
next token is the whole word. With cut tokens the sharer reads, and so predicts, the receiver's pieces.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from c2c_lightning.alignment.chat_renderer import RenderedChat
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.span_alignment import close_gaps

_SPACE_MARKS = ("\u0120", "\u2581")
"""How byte-level and SentencePiece vocabularies begin a token with a space in front."""

Pieces = tuple[tuple[int, tuple[int, int]], ...]
"""Token ids, each with its first character and one past its last."""


def cut_points(offsets: tuple[int, int], borders: Sequence[int]) -> list[int]:
    """The ends of the parts of one token, given all borders in it.

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
    write without a space in front.

    Args:
        sharer: the sharer's own chat tokenizer.
        receiver: the receiver's.
    """

    def __init__(self, sharer: ChatTokenizer, receiver: ChatTokenizer) -> None:
        self.__dict__.update(sharer.__dict__)
        self.receiver = receiver

    def tokenize(self, chats: Sequence[RenderedChat]) -> list[TokenizedChat]:
        """See `ChatTokenizer.tokenize`; one call of the receiver's tokenizer for the borders, and one for all parts."""
        own, theirs = super().tokenize(chats), self.receiver.tokenize(chats)
        parts = [self._parts(*pair) for pair in zip(own, theirs, strict=True)]
        texts = {chat.text[slice(*part)] for chat, of_chat in zip(own, parts, strict=True) for part in chain(*of_chat)}
        pieces = self._pieces(sorted(texts))
        return [_cut(chat, of_chat, pieces) for chat, of_chat in zip(own, parts, strict=True)]

    def _parts(self, own: TokenizedChat, receiver: TokenizedChat) -> list[list[tuple[int, int]]]:
        """For each token the characters of its parts; none for a token that stays whole."""
        borders, begin = sorted({end for _, end in receiver.offsets}), 0
        parts: list[list[tuple[int, int]]] = []
        starts, ends = [*(start for start, _ in own.offsets[1:]), len(own.text)], [0, *(end for _, end in own.offsets)]
        for number, (token, (start, end)) in enumerate(zip(own.ids, own.offsets, strict=True)):
            while begin < len(borders) and borders[begin] <= start:
                begin += 1
            stop = begin
            while stop < len(borders) and borders[stop] < end:
                stop += 1
            is_alone = ends[number] <= start and end <= starts[number]  # pieces of one character have its offsets
            is_cut = stop > begin and is_alone and token not in self._special_ids
            parts.append(list(pairwise(cut_points((start, end), borders[begin:stop]))) if is_cut else [])
        return parts

    def _pieces(self, texts: Sequence[str]) -> dict[str, Pieces]:
        """The tokens of each text alone; without those that would get a space in front."""
        if not texts:
            return {}
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pieces = {}
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            first = self.tokenizer.convert_ids_to_tokens(ids[:1])
            if ids and (text[0].isspace() or not first[0].startswith(_SPACE_MARKS)):
                pieces[text] = tuple(zip(ids, close_gaps(offsets), strict=True))
        return pieces


def _cut(chat: TokenizedChat, parts: Iterable[Sequence[tuple[int, int]]], pieces: dict[str, Pieces]) -> TokenizedChat:
    """A conversation with its tokens cut into parts, where all parts of a token are known."""
    tokens: list[tuple[int, tuple[int, int]]] = []
    for whole, of_token in zip(zip(chat.ids, chat.offsets, strict=True), parts, strict=True):
        cut = [(start, pieces.get(chat.text[start:end])) for start, end in of_token]
        if not cut or any(known is None for _, known in cut):
            tokens.append(whole)
            continue
        for start, known in cut:
            tokens += [(token, (start + first, start + last)) for token, (first, last) in known or ()]
    return TokenizedChat(chat.text, chat.spans, tuple(token for token, _ in tokens), tuple(span for _, span in tokens))
