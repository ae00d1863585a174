"""The effects of fused tokens as coloured text: in the terminal, as a page, and as bars."""

import html
from typing import Any

from rich.text import Text

from c2c_lightning.analysis.fuser_pictures import new_figure
from c2c_lightning.analysis.token_effects import PromptPart, TokenEffects

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222; }
p.tokens { line-height: 2.2; }
span { font-family: ui-monospace, monospace; padding: .15em .25em; border-radius: .25em; margin: 1px;
  display: inline-block; }
span.unfused { color: #999; }
span.decides { outline: 2px solid #222; }
table { border-collapse: collapse; }
td, th { padding: .2em .8em; text-align: right; }
td:first-child { text-align: left; }
"""


def terminal_text(effects: TokenEffects) -> Text:
    """The prompt in colour: green supports the answer, red opposes it, grey is not fused."""
    text = Text()
    for part in effects.tokens:
        text.append(part.text, style=_terminal_style(effects, part))
        if "⏎" in part.text:
            text.append("\n")
    return text


def _terminal_style(effects: TokenEffects, part: PromptPart) -> str:
    if part.effect is None:
        return "bright_black"
    red, green, blue = _colour(part.effect.nats / effects.largest)
    underline = "underline " if part.effect.changes_answer else ""
    return f"{underline}black on rgb({red},{green},{blue})"


def _colour(strength: float) -> tuple[int, int, int]:
    """White for 0, green for 1, red for -1."""
    strength = max(-1.0, min(1.0, strength))
    full = (60, 170, 90) if strength > 0 else (215, 70, 70)
    red, green, blue = (round(255 + abs(strength) * (channel - 255)) for channel in full)
    return red, green, blue


def html_page(effects: TokenEffects, title: str) -> str:
    """One self-contained page; hovering over a token shows its effect in nats."""
    rows = "".join(_message_row(part) for part in effects.messages)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Fused tokens</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Which fused tokens decide the answer</h1>\n"
        f"<p>{html.escape(title)}</p>\n<p>Answer: <b>{html.escape(effects.answer)}</b>, log-probability "
        f"{effects.log_likelihood:.3f} nats on the fused cache, {effects.unfused:.3f} without fusion. Green tokens "
        "support it: it becomes less probable where their fusion is left out. Red tokens oppose it, grey ones are not "
        "fused; without the fusion of an outlined token greedy decoding gives another answer.</p>\n"
        f"<p class=tokens>{''.join(_token(effects, part) for part in effects.tokens)}</p>\n"
        f"<table><tr><th>message</th><th>nats</th><th>decides</th></tr>{rows}</table></body></html>\n"
    )


def _token(effects: TokenEffects, part: PromptPart) -> str:
    shown = html.escape(part.text) or "&nbsp;"
    if part.effect is None:
        return f"<span class=unfused>{shown}</span>"
    red, green, blue = _colour(part.effect.nats / effects.largest)
    kind = " class=decides" if part.effect.changes_answer else ""
    return f'<span{kind} style="background: rgb({red},{green},{blue})" title="{part.effect.nats:+.4f}">{shown}</span>'


def _message_row(part: PromptPart) -> str:
    if part.effect is None:
        return f"<tr><td>{html.escape(part.text)}</td><td>not fused</td><td></td></tr>"
    decides = "yes" if part.effect.changes_answer else "no"
    return f"<tr><td>{html.escape(part.text)}</td><td>{part.effect.nats:+.4f}</td><td>{decides}</td></tr>"


def token_figure(effects: TokenEffects) -> Any:
    """Bars of the fused tokens in their order."""
    fused = [(part, part.effect) for part in effects.tokens if part.effect is not None]
    figure, _ = new_figure(max(5.0, 1.5 + 0.22 * len(fused)), 4.0)
    axes = figure.subplots()
    colours = ["#3caa5a" if effect.nats > 0 else "#d74646" for _, effect in fused]
    axes.bar(range(len(fused)), [effect.nats for _, effect in fused], color=colours)
    axes.set_xticks(range(len(fused)), [part.text.replace("$", r"\$") for part, _ in fused], rotation=90)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="nats that the fusion adds to the answer")
    return figure
