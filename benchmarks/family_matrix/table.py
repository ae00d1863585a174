"""Results of the family matrix as JSON, and as the tables of docs/models.md."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.family_matrix.matrix import COLUMNS, UNTESTED, YES, Row

RESULTS = Path(__file__).parents[1] / "results" / "family_matrix.json"
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- family matrix: begin, generated -->", "<!-- family matrix: end -->"

Results = Mapping[str, Sequence[Row]]
"""Rows by version of transformers, the pinned version first."""


def read_results(path: Path = RESULTS) -> dict[str, list[Row]]:
    """The recorded rows by version of transformers; none if there is no file."""
    if not path.is_file():
        return {}
    recorded = json.loads(path.read_text())
    return {
        version: [Row(row["title"], tuple(row["cells"]), row["reason"]) for row in rows]
        for version, rows in recorded.items()
    }


def write_results(results: Results, path: Path = RESULTS) -> None:
    """Record rows."""
    content = {version: [row.to_json() for row in rows] for version, rows in results.items()}
    path.write_text(json.dumps(content, indent=1) + "\n")


def render(results: Results) -> str:
    """The tables: all classes for the first version, for the others the classes with another result."""
    (first, rows), *others = results.items()
    parts = [f"### transformers {first}", _summary(rows), _table(rows)]
    for version, newer in others:
        known = {row.title: row for row in rows}
        differ = [row for row in newer if known.get(row.title) != row]
        gone = sorted(set(known) - {row.title for row in newer})
        parts += [f"### transformers {version}", _summary(newer)]
        parts.append("Classes with another result than above:" if differ else "All results are those above.")
        parts += [_table(differ)] if differ else []
        parts += [f"Not in this version: {', '.join(f'`{title}`' for title in gone)}."] if gone else []
    return "\n\n".join(parts)


def _summary(rows: Sequence[Row]) -> str:
    counts = Counter("passed" if all(cell == YES for cell in row.cells) else row.cells[0] for row in rows)
    partly = sum(len(set(row.cells)) > 1 for row in rows)
    text = f"{len(rows)} classes and variants: {counts['passed']} pass everything, {counts['refused']} are refused, "
    return text + f"{counts[UNTESTED]} are untested" + (f", {partly} pass in part." if partly else ".")


def _table(rows: Sequence[Row]) -> str:
    lines = [["class", *COLUMNS, "reason"], ["---"] * (len(COLUMNS) + 2)]
    lines += [[row.title, *row.cells, row.reason.replace("|", "\\|")] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def update_page(results: Results, page: Path = PAGE) -> None:
    """Replace the tables between the two marks of a page."""
    text = page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{render(results)}\n\n{END}{after}")
