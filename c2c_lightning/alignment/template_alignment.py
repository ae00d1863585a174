"""Alignment for sharers that keep their tokens: message contents only, or template tokens too."""

from collections.abc import Callable, Sequence

from c2c_lightning.alignment.chat_tokenizer import TokenizedChat
from c2c_lightning.alignment.common_context import SharedText, shared_runs
from c2c_lightning.alignment.span_alignment import SharedRun, align_spans

Align = Callable[[TokenizedChat, TokenizedChat, Sequence[SharedText]], list[int]]
"""From the tokens of receiver and sharer and their shared text to the sharer position of each receiver token, or -1."""


def align_messages(receiver: TokenizedChat, sharer: TokenizedChat, shared: Sequence[SharedText]) -> list[int]:
    """`span`: content tokens are fused with the sharer token at their last character; template tokens are not fused."""
    return align_spans(receiver.offsets, sharer.offsets, shared_runs(receiver, sharer, shared))


def align_messages_and_template(
    receiver: TokenizedChat, sharer: TokenizedChat, shared: Sequence[SharedText]
) -> list[int]:
    """`span_template`: as `align_messages`, and template tokens are fused with template tokens.

    The shared messages divide each model's template tokens into sections: before the first message, between two, after
    the last. Within a section, tokens are aligned from the end, so that the tokens next to a message and at the end of
    the prompt correspond; surplus receiver tokens at the front are fused with the sharer's first token. The template
    around messages that only one of the models has belongs to no section.
    """
    index = align_messages(receiver, sharer, shared)
    if not shared:
        return index
    runs = _in_order(shared_runs(receiver, sharer, shared))
    mine = _template_sections(receiver, shared[0].receiver_message, [run.receiver_start for run in runs])
    theirs = _template_sections(sharer, shared[0].sharer_message, [run.sharer_start for run in runs])
    for tokens, sources in zip(mine, theirs, strict=True):
        if sources:
            # From the end: in all templates the last tokens open the assistant's turn.
            for distance, token in enumerate(reversed(tokens), 1):
                index[token] = sources[max(len(sources) - distance, 0)]
    return index


OWN_TOKENS: dict[str, Align] = {
    "span": align_messages,
    "span_template": align_messages_and_template,
    "span_cut": align_messages,
}
"""The strategies in which the sharer's tokens are those of its own tokenizer."""


def _in_order(runs: Sequence[SharedRun]) -> list[SharedRun]:
    """The runs without those that the sharer's template moved in front of others."""
    kept: list[SharedRun] = []
    for run in runs:
        if not kept or run.sharer_start >= kept[-1].sharer_start + kept[-1].length:
            kept.append(run)
    return kept


def _template_sections(chat: TokenizedChat, first_message: int, cuts: Sequence[int]) -> list[list[int]]:
    """Positions of template tokens before, between and after the characters `cuts`: ascending, each inside a message.

    Template tokens before the message in front of the first shared one are left out.
    """
    begin = max((span.end for span in chat.spans if span.message < first_message), default=0)
    sections: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    for token, (start, end) in enumerate(chat.offsets):
        if start >= begin and not any(span.start < end and start < span.end for span in chat.spans):
            sections[sum(cut < end for cut in cuts)].append(token)
    return sections
