"""Plots of a report: accuracy with intervals, accuracy against time, by subject, overlap of right answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c2c_lightning.errors import MissingExtraError

# Controls in grey, C2C in the strongest colour.
_CONTROL, _C2C, _OTHER = "#b0b0b0", "#c44e52", "#4c72b0"


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
    return _CONTROL if ":" in name and name.startswith("c2c") else _C2C if "c2c" in name else _OTHER


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
        axes.legend(frameon=False)
    axes.set_ylabel("accuracy, %")
    axes.tick_params(axis="x", rotation=40)
    return figure


def draw_against_time(plt: Any, section: Mapping[str, Any]) -> Any:
    """Accuracy of each responder against its seconds an answer, without controls."""
    lines = {name: line for name, line in section["responders"].items() if _colour(name) != _CONTROL}
    if len(lines) < 2 or any(line["seconds_per_answer"] <= 0 for line in lines.values()):
        return None
    figure, axes = plt.subplots(figsize=(4.5, 3.5))
    for name, line in lines.items():
        point = (line["seconds_per_answer"], 100 * line["accuracy"])
        axes.scatter(*point, color=_colour(name))
        axes.annotate(name, point, textcoords="offset points", xytext=(5, 4))
    # Text-to-text is often an order of magnitude slower.
    axes.set_xscale("log")
    axes.set_xlabel("seconds an answer")
    axes.set_ylabel("accuracy, %")
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
    figure, axes = plt.subplots(figsize=(5, 1 + 0.3 * len(subjects)))
    for name, line in lines.items():
        present = [subject for subject in subjects if subject in line]
        axes.plot([100 * line[subject]["accuracy"] for subject in present], present, "o", label=name, alpha=0.7)
    axes.set_xlabel("accuracy, %")
    axes.invert_yaxis()
    axes.legend(frameon=False, bbox_to_anchor=(1, 1))
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
