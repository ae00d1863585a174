"""Picture of response lengths and of latency against length."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from c2c_lightning.analysis.fuser_pictures import new_figure
from c2c_lightning.evaluation.response_length import ResponseLength
from c2c_lightning.profiling.length_sweep import LatencyPoint


def length_figure(lengths: Mapping[str, Mapping[str, ResponseLength]], points: Sequence[LatencyPoint]) -> Any:
    """A panel of response lengths for each benchmark, and two of latency."""
    panels: list[Callable[[Any], None]] = [partial(_draw_lengths, name, lines) for name, lines in lengths.items()]
    if points:
        panels += [partial(_draw_latency, points, over) for over in ("prompt_tokens", "new_tokens")]
    figure, _ = new_figure(4.5 * len(panels), 4.2)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
    return figure


def _draw_lengths(name: str, lines: Mapping[str, ResponseLength], axes: Any) -> None:
    low = [max(0.0, line.mean - line.ci95[0]) for line in lines.values()]
    high = [max(0.0, line.ci95[1] - line.mean) for line in lines.values()]
    axes.bar(list(lines), [line.mean for line in lines.values()], yerr=[low, high], capsize=3)
    axes.set_xticks(range(len(lines)), list(lines), rotation=40, ha="right", rotation_mode="anchor")
    axes.set(ylabel="mean tokens of a response", title=name)


def _draw_latency(points: Sequence[LatencyPoint], over: str, axes: Any) -> None:
    """The line over one length; the other one is the smallest."""
    other = "new_tokens" if over == "prompt_tokens" else "prompt_tokens"
    for name in dict.fromkeys(point.responder for point in points):
        mine = [point for point in points if point.responder == name]
        smallest = min(getattr(point, other) for point in mine)
        line = sorted((p for p in mine if getattr(p, other) == smallest), key=lambda p: int(getattr(p, over)))
        low = [p.seconds - p.fastest for p in line]
        high = [p.slowest - p.seconds for p in line]
        axes.errorbar(
            [getattr(p, over) for p in line], [p.seconds for p in line], [low, high], marker="o", capsize=3, label=name
        )
    axes.set(xlabel=over.replace("_", " ").replace("new", "response"), ylabel="seconds of an answer", ylim=(0, None))
    axes.legend(frameon=False)
