"""The text of an answer while its tokens arrive: whole characters only, cut in front of a stop string."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Decodes token by token; text that may be the beginning of a stop string is held back.

    Attributes:
        text: the text that is certain.
        is_stopped: whether a stop string has come.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        """Take a fast tokenizer and the stop strings."""
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.text, self.is_stopped = "", False
        self._decoder, self._held, self._ids = DecodeStream(skip_special_tokens=True), "", list[int]()

    def push(self, token: int) -> str:
        """The text that becomes certain with a token; empty within a character that has several tokens."""
        self._ids.append(token)
        return self._add(self._decoder.step(self.tokenizer.backend_tokenizer, token) or "")

    def finish(self) -> str:
        """The rest of the text, at the end of the answer: incomplete characters as U+FFFD, text that was held back."""
        if self.is_stopped:
            return ""
        whole: str = self.tokenizer.decode(self._ids, skip_special_tokens=True)
        known = self.text + self._held
        added = self._add(whole.removeprefix(known) if whole.startswith(known) else "")
        rest, self._held = self._held, ""
        self.text += rest
        return added + rest

    def _add(self, new: str) -> str:
        """Certain text of what was held back and what is new."""
        candidate = self._held + new
        begins = [begin for stop in self.stop if (begin := candidate.find(stop)) >= 0]
        if begins:
            certain, self._held, self.is_stopped = candidate[: min(begins)], "", True
        else:
            length = len(candidate) - max((_overlap(candidate, stop) for stop in self.stop), default=0)
            certain, self._held = candidate[:length], candidate[length:]
        self.text += certain
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that begins a stop string.

    Example:
        >>> _overlap("one, t", "two")
        1
    """
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
