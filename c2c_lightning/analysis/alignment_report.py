"""Coverage of a token alignment, and damage of texts by re-tokenisation."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from c2c_lightning.alignment.chat_tokenizer import TokenizedChat
from c2c_lightning.analysis.alignment_picture import AlignmentPicture, html_page, text_picture, visible_tokens
from c2c_lightning.data.encode import EncodedPrompt, Encoder
from c2c_lightning.data.messages import Conversation, SharerConversations
from c2c_lightning.errors import PromptError


@dataclass
class AlignmentCounts:
    """Counts over conversations, for one sharer.

    Attributes:
        conversations: number of conversations.
        receiver_tokens: prompt tokens of the receiver.
        message_tokens: receiver tokens within messages.
        fused_tokens: receiver tokens that are fused.
        fused_message_tokens: receiver tokens within messages that are fused.
        sharer_tokens: the sharer's tokens without padding.
        messages: messages with at least one fused token.
        damaged_messages: of these, messages whose text differs in the sharer's tokens.
        replacement_marks: U+FFFD in the sharer's text that the messages do not contain.
    """

    conversations: int = 0
    receiver_tokens: int = 0
    message_tokens: int = 0
    fused_tokens: int = 0
    fused_message_tokens: int = 0
    sharer_tokens: int = 0
    messages: int = 0
    damaged_messages: int = 0
    replacement_marks: int = 0

    @property
    def coverage(self) -> float:
        """Proportion of message tokens that are fused."""
        return self.fused_message_tokens / max(1, self.message_tokens)

    @property
    def damaged_share(self) -> float:
        """Proportion of messages whose text differs in the sharer's tokens."""
        return self.damaged_messages / max(1, self.messages)

    def to_json(self) -> dict[str, Any]:
        """The counts and proportions."""
        return {**asdict(self), "coverage": self.coverage, "damaged_share": self.damaged_share}

    def add(self, other: "AlignmentCounts") -> None:
        """Add the counts of another conversation."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True)
class SharerAlignment:
    """The alignment of one sharer: its strategy, counts over all conversations, the tokens of the first one."""

    strategy: str
    counts: AlignmentCounts
    picture: AlignmentPicture


@dataclass(frozen=True)
class AlignmentReport:
    """Coverage over a data set, and the tokens of its first conversation, for each sharer."""

    sharers: tuple[SharerAlignment, ...]

    def to_text(self) -> str:
        """Summary and tokens of each sharer."""
        return "\n\n".join(f"{_summary(n, s)}\n\n{text_picture(s.picture)}" for n, s in enumerate(self.sharers))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page."""
        page = html_page([(_summary(n, sharer), sharer.picture) for n, sharer in enumerate(self.sharers)])
        Path(path).write_text(page, encoding="utf-8")
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write strategy, counts, coverage and proportion of damaged messages of each sharer as JSON."""
        numbers = {"version": 1, "sharers": [{"strategy": s.strategy, **s.counts.to_json()} for s in self.sharers]}
        Path(path).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        return Path(path)


def alignment_report(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    sharer_conversations: Sequence[SharerConversations] | None = None,
) -> AlignmentReport:
    """Measure the token alignment of an encoder on prompts, whose last message is to be answered."""
    if not conversations:
        raise PromptError("no conversations to align: the source has no usable rows.")
    counts = [AlignmentCounts() for _ in encoder.strategies]
    pictures: list[AlignmentPicture] = []
    prompts = encoder.encode_many(conversations, sharer_conversations)
    chats = encoder.receiver_tokenizer.encode(conversations, True)
    for prompt, chat in zip(prompts, chats, strict=True):
        for number, sharer in enumerate(prompt.sharers):
            reader = encoder.sharer_tokenizers[number]
            counts[number].add(_count(encoder, number, prompt, chat))
            # The first conversation only: pictures hold every token.
            if len(pictures) < len(counts):
                mine = visible_tokens(encoder.receiver_tokenizer, prompt.receiver_ids, prompt.attention_mask)
                others = visible_tokens(reader, sharer.input_ids, sharer.attention_mask)
                pictures.append(AlignmentPicture(mine, others, sharer.source_index))
    pairs = zip(encoder.strategies, counts, pictures, strict=True)
    return AlignmentReport(tuple(SharerAlignment(*pair) for pair in pairs))


def _count(encoder: Encoder, number: int, prompt: EncodedPrompt, chat: TokenizedChat) -> AlignmentCounts:
    sharer = prompt.sharers[number]
    real = prompt.attention_mask or [1] * len(prompt.receiver_ids)
    # Source index of each receiver token, without padding.
    index = [source for source, bit in zip(sharer.source_index, real, strict=True) if bit]
    ranges = [chat.token_range(span.start, span.end) for span in chat.spans]
    inside = {token for start, end in ranges for token in range(start, end)}
    counts = AlignmentCounts(
        conversations=1,
        receiver_tokens=len(index),
        message_tokens=len(inside),
        fused_tokens=sum(source >= 0 for source in index),
        fused_message_tokens=sum(index[token] >= 0 for token in inside),
        sharer_tokens=sum(sharer.attention_mask or [1] * len(sharer.input_ids)),
    )
    decode = encoder.sharer_tokenizers[number].tokenizer.decode
    # These strategies give the sharer a re-tokenised copy of the receiver's text, one token for each.
    is_copy = encoder.strategies[number] in ("first", "longest")
    everything = "" if is_copy else decode(sharer.input_ids)
    for span, (start, end) in zip(chat.spans, ranges, strict=True):
        sources = [source for source in index[start:end] if source >= 0]
        if sources:
            # A re-tokenised copy is compared token by token; a sharer with its own tokens reads the whole text.
            read = decode([sharer.input_ids[source] for source in sources]) if is_copy else everything
            _compare(counts, chat.text[span.start : span.end], read)
    return counts


def _compare(counts: AlignmentCounts, shown: str, read: str) -> None:
    # A sharer's tokenizer may compose accents otherwise, which is no damage.
    shown, read = (unicodedata.normalize("NFC", text).strip() for text in (shown, read))
    counts.messages += 1
    counts.damaged_messages += shown not in read
    counts.replacement_marks += max(0, read.count("\ufffd") - shown.count("\ufffd"))


def _summary(number: int, sharer: SharerAlignment) -> str:
    counts = sharer.counts
    return (
        f"Sharer {number + 1}, token alignment `{sharer.strategy}`, {counts.conversations} conversations: "
        f"{counts.fused_message_tokens} of {counts.message_tokens} message tokens fused ({counts.coverage:.1%}), "
        f"{counts.fused_tokens} of {counts.receiver_tokens} prompt tokens; {counts.damaged_messages} of "
        f"{counts.messages} messages reach the sharer damaged ({counts.damaged_share:.1%}), with "
        f"{counts.replacement_marks} replacement marks."
    )
