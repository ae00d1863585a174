"""Alignment of chats whose models each read their own tokens: messages alone, or the template around them too."""

from collections.abc import Callable, Sequence

from c2c_lightning.alignment.chat_tokenizer import TokenizedChat
from c2c_lightning.alignment.common_context import SharedText, shared_runs
from c2c_lightning.alignment.span_alignment import SharedRun, align_spans

Align = Callable[[TokenizedChat, TokenizedChat, Sequence[SharedText]], list[int]]
"""From both models' tokens and the text they share to the sharer's position that each receiver token reads, -1 if none.
"""


def align_messages(receiver: TokenizedChat, sharer: TokenizedChat, shared: Sequence[SharedText]) -> list[int]:
    """`span`: message tokens read the sharer's token that ends where they end; template tokens read nothing.

    Args:
        receiver: the conversation as the receiver reads it.
        sharer: the conversation as the sharer reads it.
        shared: the text that both were told.

    Returns:
        For each receiver token the sharer's position, or -1.
    """
    return align_spans(receiver.offsets, sharer.offsets, shared_runs(receiver, sharer, shared))


def align_messages_and_template(
    receiver: TokenizedChat, sharer: TokenizedChat, shared: Sequence[SharedText]
) -> list[int]:
    """`span_template`: as `align_messages`, and template tokens read template tokens.

    The messages that both models show cut each model's template tokens into stretches: before the first one, between
    two, after the last one. Within a stretch tokens are counted from its end, so what stands right before a message, or
    ends the prompt, reads its like; a longer stretch's first tokens all read the other's first one. What surrounds
    messages that only one of the models was told belongs to no stretch.

    Args:
        receiver: the conversation as the receiver reads it.
        sharer: the conversation as the sharer reads it.
        shared: the text that both were told.

    Returns:
        For each receiver token the sharer's position, or -1.
    """
    index = align_messages(receiver, sharer, shared)
    if not shared:
        return index
    runs = _in_order(shared_runs(receiver, sharer, shared))
    mine = _stretches(receiver, shared[0].receiver_message, [run.receiver_start for run in runs])
    theirs = _stretches(sharer, shared[0].sharer_message, [run.sharer_start for run in runs])
    for tokens, sources in zip(mine, theirs, strict=True):
        if sources:
            for place, token in enumerate(reversed(tokens), 1):
                index[token] = sources[max(len(sources) - place, 0)]
    return index


OWN_TOKENS: dict[str, Align] = {"span": align_messages, "span_template": align_messages_and_template}
"""The strategies under which a sharer reads its own tokens."""


def _in_order(runs: Sequence[SharedRun]) -> list[SharedRun]:
    """The runs but those that the sharer's template moved in front of others."""
    kept: list[SharedRun] = []
    for run in runs:
        if not kept or run.sharer_start >= kept[-1].sharer_start + kept[-1].length:
            kept.append(run)
    return kept


def _stretches(chat: TokenizedChat, first_message: int, cuts: Sequence[int]) -> list[list[int]]:
    """Template tokens before, between and after some characters of the text; those before a message are left out.

    Args:
        chat: the conversation as one model reads it.
        first_message: index of the first message that both models were told.
        cuts: characters, ascending, each inside a message.

    Returns:
        Token positions, one list more than there are cuts.
    """
    begin = max((span.end for span in chat.spans if span.message < first_message), default=0)
    stretches: list[list[int]] = [[] for _ in range(len(cuts) + 1)]
    for token, (start, end) in enumerate(chat.offsets):
        if start >= begin and not any(span.start < end and start < span.end for span in chat.spans):
            stretches[sum(cut < end for cut in cuts)].append(token)
    return stretches
