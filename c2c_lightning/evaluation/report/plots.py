"""Plots of a report: accuracy with intervals, accuracy against time, by subject, overlap of right answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c2c_lightning.errors import MissingExtraError
from c2c_lightning.evaluation.report.communication import is_control

# Controls in grey, C2C in the strongest colour.
_CONTROL, _C2C, _OTHER = "#b0b0b0", "#c44e52", "#4c72b0"

# Ten colours of matplotlib with seven markers: seventy combinations.
_CYCLE, _MARKERS = tuple(f"C{n}" for n in range(10)), ("o", "s", "^", "v", "D", "P", "X")


def draw(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw all plots that a report has numbers for into the folder `plots` of a directory, and return the files."""
    plt = require_pyplot()
    folder = directory / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, section in report["benchmarks"].items():
        for kind, picture in (
            ("accuracy", draw_accuracy),
            ("accuracy_against_time", draw_against_time),
            ("by_subject", draw_by_subject),
            ("who_is_right", draw_overlap),
        ):
            figure = picture(plt, section)
            if figure is None:
                continue
            figure.suptitle(name)
            files.append(folder / f"{name}_{kind}.png")
            figure.savefig(files[-1], dpi=120, bbox_inches="tight")
            plt.close(figure)
    return files


def require_pyplot() -> Any:
    """Matplotlib on a backend without a screen; MissingExtraError if it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'c2c-lightning[plots]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _colour(name: str) -> str:
    return _CONTROL if is_control(name) else _C2C if "c2c" in name else _OTHER


def draw_accuracy(plt: Any, section: Mapping[str, Any]) -> Any:
    """Bars with 95 % intervals, chance as a line."""
    lines = section["responders"]
    names = list(lines)
    values = [100 * lines[name]["accuracy"] for name in names]
    # At 0 and 100 % an interval may end a rounding error before the value.
    low = [max(0.0, value - 100 * lines[name]["ci95"][0]) for name, value in zip(names, values, strict=True)]
    high = [max(0.0, 100 * lines[name]["ci95"][1] - value) for name, value in zip(names, values, strict=True)]
    figure, axes = plt.subplots(figsize=(1.2 + 0.9 * len(names), 3.5))
    axes.bar(names, values, yerr=[low, high], capsize=3, color=[_colour(name) for name in names])
    if section.get("chance"):
        axes.axhline(100 * section["chance"], linestyle=":", color="black", linewidth=1, label="chance")
        _legend_outside(axes)
    axes.set(ylabel="accuracy, %", ylim=(0, 105))
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    return figure


def _legend_outside(axes: Any) -> None:
    """A legend right of the axes, where it hides no point."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def draw_against_time(plt: Any, section: Mapping[str, Any]) -> Any:
    """Accuracy of each responder against its seconds an answer, without controls."""
    lines = {name: line for name, line in section["responders"].items() if _colour(name) != _CONTROL}
    if len(lines) < 2 or any(line["seconds_per_answer"] <= 0 for line in lines.values()):
        return None
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for number, (name, line) in enumerate(lines.items()):
        # A legend, since names beside the points run into each other; markers tell points apart that coincide.
        marker = _MARKERS[number % len(_MARKERS)]
        point = (1000 * line["seconds_per_answer"], 100 * line["accuracy"])
        axes.plot(*point, marker, label=name, markersize=8, alpha=0.8, color=_CYCLE[number % len(_CYCLE)])
    _legend_outside(axes)
    # Text-to-text is often an order of magnitude slower.
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(plt.matplotlib.ticker.NullFormatter())
    axes.set(xlabel="milliseconds an answer", ylabel="accuracy, %", ylim=(-5, 105))
    return figure


def draw_by_subject(plt: Any, section: Mapping[str, Any]) -> Any:
    """Accuracy of the main responders in each subject."""
    lines = {
        name: line["by_subject"]
        for name, line in section["responders"].items()
        if "by_subject" in line and _colour(name) != _CONTROL
    }
    if not lines:
        return None
    subjects = list(dict.fromkeys(subject for line in lines.values() for subject in line))
    # Each responder has a line of its own within a subject, so that equal accuracies do not cover each other.
    step = 0.8 / len(lines)
    figure, axes = plt.subplots(figsize=(5, 1 + (0.12 * len(lines) + 0.1) * len(subjects)), layout="constrained")
    for number, (name, line) in enumerate(lines.items()):
        present = [n for n, subject in enumerate(subjects) if subject in line]
        places = [n + step * (number - (len(lines) - 1) / 2) for n in present]
        values = [100 * line[subjects[n]]["accuracy"] for n in present]
        axes.plot(values, places, _MARKERS[number % len(_MARKERS)], label=name, color=_CYCLE[number % len(_CYCLE)])
    axes.set(xlabel="accuracy, %", xlim=(-5, 105))
    axes.set_yticks(range(len(subjects)), subjects)
    axes.set_yticks([n + 0.5 for n in range(len(subjects) - 1)], minor=True)
    axes.grid(axis="y", which="minor", linewidth=0.5)
    axes.tick_params(axis="y", which="minor", length=0)
    axes.invert_yaxis()
    _legend_outside(axes)
    return figure


#: Centres of the circles of two or three sets.
_CIRCLES = {2: ((-0.5, 0.0), (0.5, 0.0)), 3: ((-0.5, 0.4), (0.5, 0.4), (0.0, -0.45))}
_RADIUS = 0.95


def draw_overlap(plt: Any, section: Mapping[str, Any]) -> Any:
    """Venn diagram of right answers: number of questions that exactly a set of responders answers right."""
    regions = section["overlap"]
    if not regions:
        return None
    names = [region for region in regions if "+" not in region and region != "none"]
    circles = dict(zip(names, _CIRCLES[len(names)], strict=True))
    figure, axes = plt.subplots(figsize=(4.5, 4.0))
    for name, (x, y) in circles.items():
        axes.add_patch(plt.Circle((x, y), _RADIUS, color=_colour(name), alpha=0.25))
        axes.annotate(name, (2.1 * x, y + (1.15 if y >= 0 else -1.15)), ha="center", va="center")
    for region, count in regions.items():
        axes.annotate(str(count), _position(region, circles), ha="center", va="center")
    axes.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal")
    axes.axis("off")
    axes.set_title("questions answered right (corner: by none)", fontsize="medium")
    return figure


def _position(region: str, circles: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """A point in the region: the mean of its circles' centres, moved away from the other circles."""
    if region == "none":
        return 1.7, -1.7
    inside = [circles[name] for name in region.split("+")]
    outside = [centre for name, centre in circles.items() if name not in region.split("+")]
    x, y = (sum(centre[axis] for centre in inside) / len(inside) for axis in (0, 1))
    if not outside:
        return x, y
    away_x, away_y = (sum(centre[axis] for centre in outside) / len(outside) for axis in (0, 1))
    return x + 0.4 * (x - away_x), y + 0.4 * (y - away_y)
