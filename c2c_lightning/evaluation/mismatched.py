"""Selects the donor of a question: another question of the benchmark whose cache its sharers' is replaced by."""

import bisect
import hashlib
import random
from collections import Counter
from collections.abc import Hashable, Sequence

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.responders.question_prompt import QuestionPrompt

#: Donors are drawn from this many questions of the most similar length.
_NEIGHBOURS = 16

#: Group of all questions.
_ALL = ("all",)


def seed_of(conversation: Conversation, salt: str) -> int:
    """A seed that depends on the conversation alone, so that an answer does not depend on its batch."""
    # A separator keeps ["ab", "c"] and ["a", "bc"] apart; seven bytes fit a signed 64-bit seed.
    return int.from_bytes(hashlib.sha256("\x1f".join([salt, *_texts(conversation)]).encode()).digest()[:7], "big")


def _texts(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation]


class DonorPool:
    """Selects donors: questions of similar length that sharers read differently, if possible with the same choices.

    With the same choices, the donor's answer is a possible answer to the question. A question about the same private
    text is no donor: its cache would hold the answer.
    """

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        """Index all questions of a benchmark; BenchmarkError if sharers read the same in all of them."""
        self.prompts = [QuestionPrompt.of(conversation) for conversation in conversations]
        self._sharer_texts = [_texts(prompt.sharer) for prompt in self.prompts]
        if all(texts == self._sharer_texts[0] for texts in self._sharer_texts):
            raise BenchmarkError("the control `mismatched` needs at least two questions to swap their caches.")
        self._counts = Counter(prompt.choices for prompt in self.prompts)
        self._by_length: dict[Hashable, list[tuple[int, int]]] = {}
        for row, prompt in enumerate(self.prompts):
            for group in (self._group(prompt), _ALL):
                self._by_length.setdefault(group, []).append((len(prompt[-1]["content"]), row))
        for members in self._by_length.values():
            members.sort()

    def _group(self, prompt: QuestionPrompt) -> Hashable:
        """The choices where several questions have them, else their number."""
        return prompt.choices if self._counts[prompt.choices] > 1 else len(prompt.choices)

    def donor(self, prompt: QuestionPrompt, draw: int = 0) -> int:
        """The row of a question's donor; each draw from 0 to the number of candidates gives another one."""
        members = self._by_length.get(self._group(prompt), self._by_length[_ALL])
        nearest = self._nearest(prompt, members) or self._nearest(prompt, self._by_length[_ALL])
        # Seeded by the question: a resumed or distributed run takes the same donors.
        random.Random(seed_of(prompt, "donor")).shuffle(nearest)
        return nearest[draw % len(nearest)]

    def _nearest(self, prompt: QuestionPrompt, members: list[tuple[int, int]]) -> list[int]:
        """Rows of the members nearest in length that sharers read differently."""
        length, own = len(prompt[-1]["content"]), _texts(prompt.sharer)
        middle = bisect.bisect_left(members, (length, 0))
        # A window suffices unless many questions read the same.
        for width in (2 * _NEIGHBOURS, len(members)):
            window = members[max(0, middle - width) : middle + width]
            others = [
                (abs(other - length), row)
                for other, row in window
                if self._sharer_texts[row] != own and not self._is_about(prompt.document, row)
            ]
            if others:
                return [row for _, row in sorted(others)[:_NEIGHBOURS]]
        return []

    def _is_about(self, document: str, row: int) -> bool:
        return bool(document) and self.prompts[row].document == document
