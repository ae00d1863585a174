"""Goals against measurements, and predicted against measured times."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Entry

Row = dict[str, Any]

# Statement, part, entry, path in its result, goal, whether the measured number must be at most (else at least) that.
GOALS: list[tuple[str, str, str, str, float, bool]] = [
    (
        "fusion of 170 tokens, ms (paper: 90 on an A100)",
        "inference",
        "prefill, 170 tokens, float32",
        "ms.fuser",
        10,
        True,
    ),
    ("fusion of 2,048 tokens with TF32, ms", "inference", "prefill, 2048 tokens, tf32", "ms.fuser", 10, True),
    ("a whole answer, ms (paper: 445 on an A100)", "inference", "whole answers", "seconds.c2c", 0.445, True),
    ("text-to-text : C2C in a whole answer", "inference", "whole answers", "t2t_over_c2c", 1, False),
    ("fusion of 2,048 tokens with a bfloat16 fuser, ms", "inference", "the fuser in bfloat16", "ms_2048", 10, True),
    (
        "training, samples/s, fuser float32 (paper: 3.07)",
        "training_step",
        "recipe, float32",
        "samples_per_second",
        6,
        False,
    ),
    ("training, samples/s, TF32 (paper: 3.07)", "training_step", "recipe, tf32", "samples_per_second", 6, False),
    ("released step : ours, fuser bfloat16", "released", "ratios", "ours, fuser bfloat16", 1, False),
]


def goals(day: Day, entries: Sequence[Entry]) -> list[Row]:
    """Each goal with the measured number; `not measured` where there is none, or not on a GPU at the paper's sizes."""
    found = {(entry.part, entry.name): entry.result for entry in entries}
    rows = []
    for statement, part, name, path, goal, at_most in GOALS:
        measured = _at(found.get((part, name), {}), path) if day.is_cuda and not day.is_tiny else None
        holds = "not measured" if measured is None else "yes" if (measured <= goal) == at_most else "no"
        shown = f"{'at most' if at_most else 'at least'} {goal:g}"
        rows.append({"statement": statement, "goal": shown, "measured": measured, "holds": holds})
    return rows


def _at(result: Row, path: str) -> float | None:
    """The number at a dotted path; None if there is none."""
    if path in result:
        return result[path]  # type: ignore[no-any-return]
    for name in path.split("."):
        result = result.get(name, {})
    return result if isinstance(result, float | int) else None  # type: ignore[return-value]


def comparisons(entries: Sequence[Entry]) -> list[Row]:
    """Every time that was predicted beside the measured one; the longest kernels where they differ twofold."""
    profiles = {(entry.part, entry.name): entry.result for entry in entries}
    rows = []
    for entry in entries:
        for name, predicted, measured in _pairs(entry):
            ratio = measured / predicted
            row = {"time": f"{entry.part}, {entry.name}: {name}", "predicted_ms": predicted, "measured_ms": measured}
            row["ratio"] = ratio
            if not 0.5 <= ratio <= 2:
                row["kernels"] = _kernels(entry, name, profiles)
            rows.append(row)
    return rows


def _pairs(entry: Entry) -> Iterator[tuple[str, float, float]]:
    result = entry.result
    for name, predicted in result.get("predicted_ms", {}).items():
        yield name, predicted, result["ms"][name]
    if "predicted_step_ms" in result:
        yield "step", result["predicted_step_ms"], result["step_ms"]
    if entry.name.startswith("batches of"):
        for rows, numbers in result.items():
            if isinstance(numbers, dict):
                yield f"{rows} rows", numbers["predicted_ms"], numbers["step_ms"]


def _kernels(entry: Entry, name: str, profiles: dict[tuple[str, str], Row]) -> list[Row]:
    """The ten longest kernels of the nearest profile: that of the same prompt length, or of the recipe's step."""
    if entry.part == "inference":
        length = entry.name.split(",")[1].strip()
        profile = profiles.get(("inference", f"launches, {length}"), {})
        part: Row = profile.get("fuser" if name == "fuser" else "first_logits", {})
        return part.get("kernels", [])  # type: ignore[no-any-return]
    return profiles.get(("training_step", "recipe, tf32"), {}).get("kernels", [])  # type: ignore[no-any-return]
