"""Draws the pictures of the documentation: `python docs/pictures.py` writes docs/images/*.svg."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from c2c_lightning import embedded
from c2c_lightning.alignment.layer_alignment import depth, terminal, terminal_or_skip
from c2c_lightning.data.encode import Encoder, TokenizerSpec

IMAGES = Path(__file__).parent / "images"
RECEIVER, SHARER, FUSED, TEXT, LINE = "#dbe4ee", "#f6e3c5", "#e8a33d", "#222222", "#8a8a8a"

matplotlib.use("Agg")
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "c2c", "font.family": "sans-serif", "font.size": 10})


def box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 0.9) -> None:
    """One token or layer."""
    axes.add_patch(plt.Rectangle((x - width / 2, y - 0.25), width, 0.5, facecolor=colour, edgecolor=LINE, lw=0.8))
    size = 9 if len(text) < 9 or " " in text else 7 if len(text) < 11 else 5.5
    axes.text(x, y, text, ha="center", va="center", color=TEXT, fontsize=size)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From a sharer's entry to the receiver's entry that it is fused into."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#b06f00", "lw": 1.2})


def frame(axes: Axes, width: float, bottom: float, top: float) -> None:
    """Only the drawing, without axes."""
    axes.set_xlim(-3.2, width)
    axes.set_ylim(bottom, top)
    axes.set_axis_off()


def fusion() -> Figure:
    """The tokens that each fusion mode fuses."""
    prompt, response = ["What", "is", "the", "capital", "?"], ["Der", "na", "."]
    modes = {"prefill": len(prompt) - 1, "prompt": len(prompt), "decode": len(prompt) + len(response)}
    figure, rows = plt.subplots(len(modes), 1, figsize=(9, 6.2))
    for axes, (mode, count) in zip(rows, modes.items(), strict=True):
        tokens = prompt + response
        for n, token in enumerate(tokens):
            x = n + 0.4 * (n >= len(prompt))
            if n < max(count, len(prompt) - 1):
                box(axes, x, 1.2, token, SHARER)
            box(axes, x, 0, token, FUSED if n < count else RECEIVER)
            if n < count:
                arrow(axes, (x, 0.92), (x, 0.29))
        axes.text(-3.1, 1.2, "sharer's cache", va="center")
        axes.text(-3.1, 0, "receiver's cache", va="center")
        axes.set_title(f"fusion_mode: {mode}", loc="left", fontsize=10, fontweight="bold")
        axes.text((len(prompt) - 1) / 2, -0.55, "prompt", ha="center", color=LINE)
        axes.text(len(prompt) + 1.4, -0.55, "response", ha="center", color=LINE)
        frame(axes, len(tokens) + 0.9, -0.75, 1.7)
    return figure


def tokens() -> Figure:
    """Span alignment of a question under the two tokenizers of the embedded pair."""
    folders = [embedded.resolve(f"embedded:{name}") for name in ("receiver", "sharer")]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
    encoder = Encoder(TokenizerSpec(tokenizers[0]), [TokenizerSpec(tokenizers[1])], "span")
    example = encoder.encode([{"role": "user", "content": "What is the capital of Nepi?"}])
    mine, theirs = example.receiver_ids, example.sharers[0].input_ids
    figure, axes = plt.subplots(figsize=(12, 2.6))
    widths = [max(len(side) for side in (mine, theirs)) / len(side) for side in (mine, theirs)]
    for ids, tokenizer, y, stretch in zip((mine, theirs), tokenizers, (0, 1.6), widths, strict=True):
        index = example.sharers[0].source_index
        for n, token in enumerate(ids):
            fused = y == 0 and index[n] >= 0
            colour = FUSED if fused else RECEIVER if y == 0 else SHARER
            box(axes, n * stretch, y, tokenizer.decode([token]).replace("\n", "\\n").strip(" "), colour, 0.92 * stretch)
            if fused:
                arrow(axes, (index[n] * widths[1], 1.32), (n * stretch, 0.29))
    axes.text(-3.1, 1.6, "sharer's tokens", va="center")
    axes.text(-3.1, 0, "receiver's tokens", va="center")
    frame(axes, max(len(mine), len(theirs)) + 0.2, -0.4, 2.0)
    return figure


def layers() -> Figure:
    """Layer alignment of 6 receiver layers with 4 sharer layers."""
    rules: dict[str, Callable[[int, int], Sequence[int | None]]] = {
        "terminal": terminal,
        "depth": depth,
        "skip": terminal_or_skip,
    }
    figure, columns = plt.subplots(1, len(rules), figsize=(9, 3.6))
    for axes, (name, rule) in zip(columns, rules.items(), strict=True):
        sources = rule(6, 4)
        for layer in range(4):
            box(axes, 0, layer * 0.7, f"sharer {layer}", SHARER, 1.5)
        for layer, source in enumerate(sources):
            box(axes, 3.4, layer * 0.7, f"receiver {layer}", RECEIVER if source is None else FUSED, 2.0)
            if source is not None:
                arrow(axes, (0.78, source * 0.7), (2.38, layer * 0.7))
        axes.set_title(f"layer_alignment: {name}", fontsize=10, fontweight="bold")
        axes.set_xlim(-0.9, 4.5)
        axes.set_ylim(-0.4, 4.0)
        axes.set_axis_off()
    return figure


def controls() -> Figure:
    """Two evaluations in docs/results.md: one in which the content of the cache decides, one in which it does not."""
    shown = {
        "embedded pair: communication shown": {
            "receiver": (12.5, 9.8, 15.8),
            "C2C, another\nquestion's cache": (11.0, 8.5, 14.2),
            "C2C": (99.4, 98.2, 99.8),
        },
        "CommonsenseQA: communication not shown": {
            "receiver": (28.3, 23.5, 33.7),
            "C2C, another\nquestion's cache": (40.5, 35.2, 45.7),
            "C2C": (41.0, 35.6, 46.6),
        },
    }
    figure, columns = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axes, (title, bars) in zip(columns, shown.items(), strict=True):
        values = [value for value, _, _ in bars.values()]
        errors = [[value - low for value, low, _ in bars.values()], [high - value for value, _, high in bars.values()]]
        axes.bar(list(bars), values, color=[RECEIVER, SHARER, FUSED], edgecolor=LINE, yerr=errors, capsize=4)
        for n, (value, _, high) in enumerate(bars.values()):
            axes.text(n, high + 2, f"{value:.1f}", ha="center")
        axes.set_title(title, fontsize=10, fontweight="bold")
        axes.set_ylim(0, 115)
        axes.set_yticks(range(0, 101, 20))
        axes.spines[["top", "right"]].set_visible(False)
    columns[0].set_ylabel("right answers, %")
    return figure


PICTURES = {"fusion": fusion, "tokens": tokens, "layers": layers, "controls": controls}


def main(folder: Path = IMAGES, kind: str = "svg") -> None:
    """Write all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw()
        # Without a date, so that the files change only with the pictures.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(folder / f"{name}.{kind}", bbox_inches="tight", facecolor="white", metadata=metadata)
        plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), *sys.argv[2:3])
