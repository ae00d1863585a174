"""Which other question stands in for a question's sharer."""

import bisect
import hashlib
import random
from collections.abc import Hashable, Sequence

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import BenchmarkError

#: Donors are drawn from this many questions of the most similar length.
_NEIGHBOURS = 16


def seed_of(conversation: Conversation, salt: str) -> int:
    """A seed that depends on a conversation alone, so that an answer does not depend on its batch."""
    text = "\x1f".join([salt, *(message["content"] for message in conversation)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


class DonorPool:
    """Finds donors: other questions of like length and, where there are any, with the same choices.

    Attributes:
        conversations: all questions of the benchmark.
    """

    def __init__(self, conversations: Sequence[Conversation], groups: Sequence[Hashable] | None = None) -> None:
        """Take the questions that donors are drawn from.

        Args:
            conversations: all questions of the benchmark.
            groups: donors are of the same group if it has other members (the same choices, so that a donor's answer
                is a possible one).

        Raises:
            BenchmarkError: a single question has no donor.
        """
        self.conversations = list(conversations)
        self._texts = [conversation[-1]["content"] for conversation in self.conversations]
        if len(set(self._texts)) < 2:
            raise BenchmarkError("the control `mismatched` needs at least two questions to swap their caches.")
        labels = groups if groups is not None else [None] * len(self._texts)
        self._group = dict(zip(self._texts, labels, strict=True))
        self._by_length: dict[Hashable, list[tuple[int, int]]] = {}
        everybody = ("everybody",)
        for row, (text, label) in enumerate(zip(self._texts, labels, strict=True)):
            for key in ((label,), everybody):
                self._by_length.setdefault(key, []).append((len(text), row))
        for members in self._by_length.values():
            members.sort()
        self._everybody = self._by_length[everybody]

    def donor(self, conversation: Conversation, draw: int = 0) -> int:
        """The row of a question's donor; the next draws give other donors, as far as there are any.

        Args:
            conversation: the question.
            draw: number of the draw, from 0.
        """
        text = conversation[-1]["content"]
        members = self._by_length.get((self._group.get(text),), self._everybody)
        nearest = self._nearest(text, members) or self._nearest(text, self._everybody)
        random.Random(seed_of(conversation, "donor")).shuffle(nearest)
        return nearest[draw % len(nearest)]

    def _nearest(self, text: str, members: list[tuple[int, int]]) -> list[int]:
        """Rows of the members nearest in length, without the question itself."""
        middle = bisect.bisect_left(members, (len(text), 0))
        # A window suffices, unless a question stands there very often.
        for width in (2 * _NEIGHBOURS, len(members)):
            window = members[max(0, middle - width) : middle + width]
            others = [(abs(length - len(text)), row) for length, row in window if self._texts[row] != text]
            if others:
                return [row for _, row in sorted(others)[:_NEIGHBOURS]]
        return []
