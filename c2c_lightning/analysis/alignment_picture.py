"""Token alignment of one conversation, as text and as an HTML page."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer

_PADDING = "·"
_NOT_FUSED = "-"


@dataclass(frozen=True)
class AlignmentPicture:
    """The tokens of receiver and sharer with their alignment.

    Attributes:
        receiver: printable tokens of the receiver.
        sharer: printable tokens of the sharer.
        source_index: for each receiver token the index of the sharer token that it is fused with, -1 if none.
    """

    receiver: list[str]
    sharer: list[str]
    source_index: list[int]


def visible_tokens(reader: ChatTokenizer, ids: Sequence[int], attention_mask: Sequence[int] | None) -> list[str]:
    """Printable tokens: white space as symbols, partial characters as bytes, padding (mask 0) as a dot."""
    mask = [1] * len(ids) if attention_mask is None else attention_mask
    return [_visible(reader, token) if bit else _PADDING for token, bit in zip(ids, mask, strict=True)]


def _visible(reader: ChatTokenizer, token: int) -> str:
    text: str = reader.tokenizer.decode([token], skip_special_tokens=False)
    if "\ufffd" in text:
        text = f"⟨{reader.tokenizer.convert_ids_to_tokens(token)}⟩"
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣").replace("\r", "␍")


def text_picture(picture: AlignmentPicture) -> str:
    """A table of each receiver token with its sharer token, and a last line with the unused sharer tokens."""
    width = max((len(token) for token in picture.receiver), default=0)
    lines = [f"{'receiver':>{width + 5}}    sharer"]
    for index, (token, source) in enumerate(zip(picture.receiver, picture.source_index, strict=True)):
        read = _NOT_FUSED if source < 0 else f"{picture.sharer[source]}  {source}"
        lines.append(f"{index:4} {token:>{width}} <- {read}")
    unread = sorted(set(range(len(picture.sharer))) - set(picture.source_index))
    lines.append(f"read by no receiver token: {' '.join(picture.sharer[index] for index in unread) or 'none'}")
    return "\n".join(lines)


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222; }
p.tokens { line-height: 2.1; }
span.t { font-family: ui-monospace, monospace; padding: .15em .25em; border-radius: .25em; margin: 1px; cursor: default;
  display: inline-block; background: #f0f0f0; color: #999; }
span.f { background: hsl(var(--h) 70% 86%); color: #222; }
span.on { outline: 2px solid #222; }
"""

# Hovering over a token highlights its partners.
_SCRIPT = """
document.querySelectorAll('section').forEach(section => {
  const mark = (key, on) => section.querySelectorAll('[data-s="' + key + '"]')
    .forEach(token => token.classList.toggle('on', on));
  section.querySelectorAll('span.f').forEach(token => {
    token.addEventListener('mouseenter', () => mark(token.dataset.s, true));
    token.addEventListener('mouseleave', () => mark(token.dataset.s, false));
  });
});
"""


def html_page(parts: Sequence[tuple[str, AlignmentPicture]]) -> str:
    """Pictures with captions, one for each sharer, as one self-contained page."""
    sections = "\n".join(_section(caption, picture) for caption, picture in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Token alignment</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Token alignment</h1>\n"
        "<p>Tokens of one colour are aligned; grey tokens are not fused. Hover over a token to see its partners.</p>\n"
        f"{sections}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(caption: str, picture: AlignmentPicture) -> str:
    read = set(picture.source_index) - {-1}
    mine = [_token(text, source) for text, source in zip(picture.receiver, picture.source_index, strict=True)]
    theirs = [_token(text, index if index in read else -1) for index, text in enumerate(picture.sharer)]
    return (
        f"<section><p>{html.escape(caption)}</p><h2>Receiver</h2><p class=tokens>{''.join(mine)}</p>"
        f"<h2>Sharer</h2><p class=tokens>{''.join(theirs)}</p></section>"
    )


def _token(text: str, source: int) -> str:
    shown = html.escape(text) or "&nbsp;"
    if source < 0:
        return f"<span class=t>{shown}</span>"
    # Neighbours have distant colours.
    return f'<span class="t f" data-s={source} style="--h:{source * 67 % 360}">{shown}</span>'
