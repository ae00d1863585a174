"""A report in the terminal: tables that never cut a number, and the verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from c2c_lightning.evaluation.report.columns import filled_columns
from c2c_lightning.evaluation.report.render import notes

#: Longer names of responders are folded.
_NAME_WIDTH = 20


def show(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print warnings, tables, notes and the verdicts."""
    console = console or Console()
    for warning in report["warnings"]:
        console.print(f"WARNING: {warning}", style="yellow", markup=False, highlight=False)
    for name, section in report["benchmarks"].items():
        console.print(f"\n{name} ({section['mode']})", style="italic", markup=False, highlight=False)
        for table in tables(section, console):
            console.print(table)
        for note in (*notes(section), section["verdict"]["text"]):
            # Names may contain brackets, which rich reads as markup.
            console.print(note, markup=False, highlight=False)


def tables(section: Mapping[str, Any], console: Console) -> Iterator[Table]:
    """A benchmark's table, in as many parts as the terminal's width needs; each repeats the responders' names."""
    columns, rows = filled_columns(section)
    names = [row[0] for row in rows]
    cells = [[column.title, *(row[n + 1] for row in rows)] for n, column in enumerate(columns)]
    begin = 0
    while begin < len(cells):
        end = begin + 1
        while end < len(cells) and _fits(_table(names, cells[begin : end + 1]), console):
            end += 1
        yield _table(names, cells[begin:end])
        begin = end


def _fits(table: Table, console: Console) -> bool:
    # Rich clips a measurement to the width that is given.
    unclipped = console.options.update(max_width=10_000)
    return Measurement.get(console, unclipped, table).minimum <= console.width


def _table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    """The names and some columns, each with its title first."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    width = min(max(len("responder"), *map(len, names)), _NAME_WIDTH)
    table.add_column("responder", width=width, overflow="fold")
    for title, *values in cells:
        # The width of the longest cell: rich would cut numbers to make room for names.
        table.add_column(title, justify="right", no_wrap=True, min_width=max(map(len, (title, *values))))
    for row in zip(names, *(values for _, *values in cells), strict=True):
        table.add_row(*row)
    return table
