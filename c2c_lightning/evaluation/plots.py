"""Pictures of a report: accuracy with intervals, accuracy against time, by subject, who is right where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c2c_lightning.errors import MissingExtraError

# Controls in grey, C2C in the strongest colour: the comparison that matters shows at once.
_CONTROL, _C2C, _OTHER = "#b0b0b0", "#c44e52", "#4c72b0"


def draw(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw everything that a report has numbers for.

    Args:
        report: as from `build_report`.
        directory: the pictures go into its folder `plots`.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
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
    """Matplotlib on a backend without a screen.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
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
    # An interval may lie a rounding error inside the value at 0 and 100 %.
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
    """Each responder's accuracy over its seconds an answer, without controls."""
    lines = {name: line for name, line in section["responders"].items() if _colour(name) != _CONTROL}
    if len(lines) < 2 or any(line["seconds_per_answer"] <= 0 for line in lines.values()):
        return None
    figure, axes = plt.subplots(figsize=(4.5, 3.5))
    for name, line in lines.items():
        place = (line["seconds_per_answer"], 100 * line["accuracy"])
        axes.scatter(*place, color=_colour(name))
        axes.annotate(name, place, textcoords="offset points", xytext=(5, 4))
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


def draw_overlap(plt: Any, section: Mapping[str, Any]) -> Any:
    """How many questions each set of responders, and no other, gets right (the regions of a Venn diagram)."""
    regions = section["overlap"]
    if not regions:
        return None
    figure, axes = plt.subplots(figsize=(4.5, 0.8 + 0.35 * len(regions)))
    labels = [region.replace("+", ", ") for region in regions]
    bars = axes.barh(labels, list(regions.values()), color=_OTHER)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("questions that these get right and no other")
    return figure
