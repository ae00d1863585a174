"""Warnings about answers that cannot be read, with advice: such an accuracy measures the format, not knowledge."""

from collections.abc import Iterator, Mapping
from typing import Any

from c2c_lightning.evaluation.report.communication import is_control

#: Fraction of a responder's answers above which its accuracy is not to be trusted.
UNREADABLE = 0.1


def unreadable_answers(section: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """At most one warning for a benchmark: the responders, controls left out, with too many unreadable answers."""
    shares = {
        name: line["unparsed"] / line["answers"]
        for name, line in section["responders"].items()
        if not is_control(name) and line["unparsed"] > UNREADABLE * line["answers"]
    }
    if not shares:
        return []
    named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    advice = "; or ".join(_advice(section, run, shares))
    return [
        f"Many answers cannot be read: {named}. They count as wrong, so these accuracies measure the format of the "
        f"answers more than knowledge. {advice[0].upper()}{advice[1:]}."
    ]


def _advice(section: Mapping[str, Any], run: Mapping[str, Any], shares: Mapping[str, float]) -> Iterator[str]:
    lines = section["responders"]
    if section.get("chance"):
        yield "compare the likelihoods of the choices (`mode: cloze` with `wording: question`, or `mode: letter`)"
    if any(lines[name].get("begins_with_choice") for name in shares):
        yield "accept replies that continue after their answer (`scoring: first_line`)"
    yield "ask in the words that models and fuser were trained on (`wording`)"
    # The sharer's cache of the last prompt token is where many models look an answer up.
    if "c2c" in shares and run.get("fusion_mode") == "prefill":
        yield "train with `fusion_mode: prompt`, which fuses the last prompt token too"
