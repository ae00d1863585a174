"""Renders a report as Markdown, and the notes under its tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from c2c_lightning.evaluation.report.aggregate import TOKEN_COUNTS
from c2c_lightning.evaluation.report.columns import filled_columns

#: In temporal order.
PHASES = ("message", "prefill_sharer", "prefill_receiver", "fuse", "decode", "total")


def notes(section: Mapping[str, Any]) -> Iterator[str]:
    """Facts outside the table: oracle, latency ratio, detectable difference, control of closed gates, faults."""
    if section["oracle"]:
        bound = section["oracle"]
        yield f"Right if {' or '.join(bound['of'])} is (a perfect router between them): {bound['accuracy']:.1%}."
    if section["t2t_to_c2c_seconds"] is not None:
        yield f"Text-to-text takes {section['t2t_to_c2c_seconds']:.1f} times as long as C2C."
    yield from _size_notes(section)
    pair = next((line for line in section["comparisons"] if (line["a"], line["b"]) == ("c2c", "receiver")), None)
    if pair is not None:
        yield (
            f"Detectable difference to the receiver with {pair['n']} questions (power 0.8, p < 0.05): "
            f"{100 * pair['detectable']:.1f} points."
        )
    yield from _position_notes(section)
    for name, line in section["responders"].items():
        if count := line.get("begins_with_choice"):
            yield f"{name}: {continued(count, line['answers'], section['scoring'])}"
    yield from (f"FAULT: {fault}" for fault in section["faults"])


def _size_notes(section: Mapping[str, Any]) -> Iterator[str]:
    """Bytes that C2C sends against those of the private text."""
    sent, text = section["responders"].get("c2c", {}).get("bytes_per_prompt"), section.get("document_bytes")
    if sent and text:
        yield (
            f"C2C sends {sent:,.0f} bytes a prompt, {sent / text:,.0f} times the {text:,.0f} bytes of the private text."
        )


def _position_notes(section: Mapping[str, Any]) -> Iterator[str]:
    """Differences between C2C with closed gates and the bare receiver, with their causes."""
    gates, lines = section["gates_closed"], section["responders"]
    shifted = next((line for line in lines.values() if line.get("shifted_positions")), None)
    if shifted is not None:
        yield (
            f"Released token alignment: padding inside the receiver's prompt shifts its positions in "
            f"{shifted['shifted_positions']} of {shifted['answers']} C2C prompts; `receiver` reads its own positions."
        )
    if gates is None:
        return
    if not gates["unlike_receiver"]:
        yield "With closed gates C2C gives the receiver's answers."
    if count := gates["released_positions"]:
        alone, closed = (lines[name]["accuracy"] for name in ("receiver", "c2c:gates_closed"))
        yield (
            f"With closed gates {count} answers differ from the receiver's because of the shifted positions; accuracy "
            f"{closed:.1%} against {alone:.1%}. Gains over the receiver contain this effect."
        )
    if count := gates["rounding"]:
        yield f"With closed gates {count} answers differ from the receiver's by rounding (several prefill passes)."


def continued(count: int, answers: int, scoring: str) -> str:
    """Warning about replies that continue after the text of a choice."""
    return (
        f"{count} of {answers} replies begin with the text of a choice and continue, so `scoring: {scoring}` counts "
        "them as wrong. Use `scoring: first_line` for models that do not stop after their answer."
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown, with the verdicts at both ends."""
    verdicts = "\n".join(f"- {name}: {section['verdict']['text']}" for name, section in report["benchmarks"].items())
    warnings = "\n\n".join(f"**Warning.** {warning}" for warning in report["warnings"])
    parts = ["# Evaluation", warnings, verdicts]
    for name, section in report["benchmarks"].items():
        columns, rows = filled_columns(section)
        table = _markdown_table(["responder", *(column.title for column in columns)], rows)
        meanings = "\n".join(f"- **{column.title}**: {column.meaning}" for column in columns)
        parts += [f"## {name}\n\n{section.get('protocol', '')}".rstrip(), table, meanings, "\n\n".join(notes(section))]
        parts += [_latency(section), _cost(section), _subjects(section)]
    parts += ["## Run", _run_lines(report["run"]), "## Verdict", verdicts]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_lines(run: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in run.items() if isinstance(value, str | int | float))


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ("---",) + ("---:",) * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _latency(section: Mapping[str, Any]) -> str:
    """Median (90th percentile) of each phase, in milliseconds."""
    lines = {name: line["latency"] for name, line in section["responders"].items() if "latency" in line}
    phases = tuple(phase for phase in PHASES if any(phase in line for line in lines.values()))
    if len(phases) < 2:
        return ""
    rows = ((name, *(_median(line.get(phase), 1000.0, 1) for phase in phases)) for name, line in lines.items())
    table = _markdown_table(("milliseconds: median (90 %)", *phases), rows)
    return f"Time of an answer (milliseconds; a batch's time is divided equally among its answers):\n\n{table}"


def _cost(section: Mapping[str, Any]) -> str:
    """Tokens of an answer, and memory: medians (90th percentiles)."""
    lines = {name: line for name, line in section["responders"].items() if "tokens" in line}
    has_memory = any("peak_memory_bytes" in line for line in lines.values())

    def cells(line: Mapping[str, Any]) -> list[str]:
        found = [_median(line["tokens"][column], 1.0, 0) for column in TOKEN_COUNTS]
        return found + [_median(line.get("peak_memory_bytes"), 2**-20, 0)] * has_memory

    head = ("median (90 %)", "prompt tokens", "new", "of sharers", "of messages", *("peak MiB",) * has_memory)
    return _markdown_table(head, ((name, *cells(line)) for name, line in lines.items())) if lines else ""


def _median(value: Mapping[str, float] | None, factor: float, digits: int) -> str:
    return "" if value is None else f"{factor * value['median']:.{digits}f} ({factor * value['p90']:.{digits}f})"


def _subject_cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    return f"{100 * entry['accuracy']:.1f}" + (f" ({100 * entry['f1']:.1f})" if "f1" in entry else "")


def _subjects(section: Mapping[str, Any]) -> str:
    lines = {name: line["by_subject"] for name, line in section["responders"].items() if "by_subject" in line}
    if not lines:
        return ""
    subjects = tuple(dict.fromkeys(subject for line in lines.values() for subject in line))

    def cells(subject: str) -> tuple[str, ...]:
        return tuple(_subject_cell(line.get(subject)) for line in lines.values())

    table = _markdown_table(("subject", *lines), ((s, *cells(s)) for s in subjects))
    is_f1 = any("f1" in entry for line in lines.values() for entry in line.values())
    return f"By subject, %{' (F1)' if is_f1 else ''}:\n\n{table}"
