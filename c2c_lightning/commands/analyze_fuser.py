"""`lightning analyze rank` and `gates`: a trained fuser on a data set."""

import math
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from c2c_lightning.analysis.effective_rank import RankReport, rank_report
from c2c_lightning.analysis.fused_entries import collect_entries
from c2c_lightning.analysis.fuser_pictures import gate_figure, rank_figure
from c2c_lightning.analysis.gate_report import PARTS, GateReport, gate_report
from c2c_lightning.commands.fuser_analysis import (
    check_sharer,
    encoded,
    fuser_parser,
    only_source,
    prompt_batches,
    write_analysis,
)
from c2c_lightning.data.preprocessing.row_encoder import prompts_by
from c2c_lightning.data.sources import Source
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.load_models import load_fused
from c2c_lightning.model.c2c import C2CModel


def analyze_rank(args: Sequence[str]) -> None:
    """Effective rank of the sharer's, the receiver's and the fused cache, per layer (paper, table 2 and Fig. 12)."""
    parser = fuser_parser("rank", analyze_rank.__doc__)
    parser.add_argument("--tokens", type=int, default=1024, help="fused tokens of a sample")
    parser.add_argument("--samples", type=int, default=1, help="disjoint samples; several give a spread")
    options = parser.options(args)
    if options.tokens < 2 or options.samples < 1:
        raise ConfigurationError("`tokens` must be at least 2 and `samples` at least 1.")
    source = only_source(options)
    model = load_fused(options.fuser)
    prompts = prompt_batches(model, source, options)
    entries = collect_entries(model, prompts, options.tokens * options.samples, options.sharer)
    report = rank_report(entries, options.samples)
    write_analysis(Path(options.output_dir), "rank", report.to_json(), lambda: rank_figure(report))
    Console().print(_rank_table(report))


def analyze_gates(args: Sequence[str]) -> None:
    """Gates and mean head weights per layer and head, over each data set (paper, A.4.2)."""
    parser = fuser_parser("gates", analyze_gates.__doc__)
    parser.add_argument("--by", type=str | None, help="column of the rows, such as subject: a report for each value")
    options = parser.options(args)
    model = load_fused(options.fuser)
    reports: dict[str, GateReport] = {}
    for source in options.sources:
        reports |= _gate_reports(model, source, options)
    document = {"version": 1, "sources": {name: report.to_json() for name, report in reports.items()}}
    write_analysis(Path(options.output_dir), "gates", document, lambda: gate_figure(reports, options.sharer))
    for name, report in reports.items():
        Console().print(_gate_table(name, report, options.sharer))


def _gate_reports(model: C2CModel, source: Source, options: Namespace) -> dict[str, GateReport]:
    """The report of a source, or of each value of the column that `by` names."""
    if options.by is None:
        return {source.name: gate_report(model, prompt_batches(model, source, options))}
    check_sharer(model, options.sharer)
    groups = prompts_by(source, model.encoder, options.by, options.max_rows)
    names = {value: f"{source.name}, {options.by} {value}" for value in groups}
    return {
        names[value]: gate_report(model, encoded(model, prompts, names[value], options))
        for value, prompts in groups.items()
    }


def _rank_table(report: RankReport) -> Table:
    """Means over layers, as in table 2 of the paper."""
    table = Table("effective rank", title=f"{report.tokens} fused tokens, mean over {len(report.layers)} layers")
    for part in PARTS:
        table.add_column(part, justify="right")
        table.add_column("at most", justify="right")
    means = report.to_json()["mean"]
    for cache in report.ranks:
        cells = []
        for part in PARTS:
            spread = f" ± {report.spread[cache][part]:.1f}" if report.spread else ""
            cells += [f"{means[cache][part]:.1f}{spread}", str(report.bound[cache][part])]
        table.add_row(cache, *cells)
    return table


def _gate_table(name: str, report: GateReport, sharer: int) -> Table:
    """Logit, and gate times weight averaged over heads, per layer."""
    table = Table("layer", title=f"{name}: {report.tokens} fused tokens")
    for part in PARTS:
        table.add_column(f"{part}: logit", justify="right")
        table.add_column("gate x weight", justify="right")
        table.add_column("weight: 95 %", justify="right")
    tables = [report.effective(sharer, part) for part in PARTS]
    for layer in range(report.logits.shape[2]):
        if all(bool(of_part[layer].isnan().all()) for of_part in tables):
            continue  # no fuser
        cells = []
        for index, part in enumerate(PARTS):
            low, high = report.intervals.get((sharer, part, layer), (math.nan, math.nan))
            cells += [f"{report.logits[sharer, index, layer]:.2f}", f"{tables[index][layer].nanmean():.3f}"]
            cells.append("" if math.isnan(low) else f"{low:.3f}-{high:.3f}")
        table.add_row(str(layer), *cells)
    return table
