"""`lightning analyze rank` and `gates`: a trained fuser on a data set."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import track
from rich.table import Table

from c2c_lightning.analysis.effective_rank import RankReport, rank_report
from c2c_lightning.analysis.fused_entries import collect_entries
from c2c_lightning.analysis.fuser_pictures import gate_figure, rank_figure
from c2c_lightning.analysis.gate_report import PARTS, GateReport, gate_report
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.preprocessing.row_encoder import prompts_of
from c2c_lightning.data.sources import Source
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError, MissingExtraError
from c2c_lightning.evaluation.load_models import load_fused
from c2c_lightning.evaluation.prediction_log import write_atomically
from c2c_lightning.model.c2c import C2CModel

logger = logging.getLogger(__name__)


def analyze_rank(args: Sequence[str]) -> None:
    """Effective rank of the sharer's, the receiver's and the fused cache, per layer (paper, table 2 and Fig. 12)."""
    parser = _parser("rank", analyze_rank.__doc__)
    parser.add_argument("--tokens", type=int, default=1024, help="fused tokens of a sample")
    parser.add_argument("--samples", type=int, default=1, help="disjoint samples; several give a spread")
    options = parser.options(args)
    if options.tokens < 2 or options.samples < 1:
        raise ConfigurationError("`tokens` must be at least 2 and `samples` at least 1.")
    source = _only_source(options)
    model = load_fused(options.fuser)
    entries = collect_entries(model, _prompts(model, source, options), options.tokens * options.samples, options.sharer)
    report = rank_report(entries, options.samples)
    _write(Path(options.output_dir), "rank", report.to_json(), lambda: rank_figure(report))
    Console().print(_rank_table(report))


def analyze_gates(args: Sequence[str]) -> None:
    """Gates and mean head weights per layer and head, over each data set (paper, A.4.2)."""
    options = _parser("gates", analyze_gates.__doc__).options(args)
    model = load_fused(options.fuser)
    reports = {source.name: gate_report(model, _prompts(model, source, options)) for source in options.sources}
    document = {"version": 1, "sources": {name: report.to_json() for name, report in reports.items()}}
    _write(Path(options.output_dir), "gates", document, lambda: gate_figure(reports, options.sharer))
    for name, report in reports.items():
        Console().print(_gate_table(name, report, options.sharer))


def _parser(name: str, about: str | None) -> CommandParser:
    parser = CommandParser(prog=f"lightning analyze {name}", description=about)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory, hub id or checkpoint")
    parser.add_argument("--sources", type=list[Source], required=True, help="conversations, as in `lightning fit`")
    parser.add_argument("--sharer", type=int, default=0, help="number of the sharer that is shown")
    parser.add_argument("--max_rows", type=int, default=1000, help="how many conversations of a source to read")
    parser.add_argument("--batch_size", type=int, default=16, help="prompts of a batch")
    parser.add_argument("--output_dir", type=str, default=f"runs/{name}", help="where numbers and picture go")
    return parser


def _only_source(options: Namespace) -> Source:
    if len(options.sources) != 1:
        raise ConfigurationError(f"`sources` has {len(options.sources)} sources, but ranks are of one.")
    source: Source = options.sources[0]
    return source


def _prompts(model: C2CModel, source: Source, options: Namespace) -> Iterator[PromptBatch]:
    """The prompts of a source in batches, with a progress bar."""
    if not 0 <= options.sharer < len(model.sharers):
        raise ConfigurationError(f"there is no sharer {options.sharer}: the fuser has {len(model.sharers)}.")
    pairs = list(islice(prompts_of(source, model.encoder), options.max_rows))
    batches = [pairs[n : n + options.batch_size] for n in range(0, len(pairs), max(1, options.batch_size))]
    for batch in track(batches, source.name, console=ERROR_CONSOLE, transient=True):
        yield model.encode([own for own, _ in batch], [theirs for _, theirs in batch])


def _write(folder: Path, name: str, document: dict[str, Any], figure: Callable[[], Any]) -> None:
    """The numbers, and the picture where matplotlib is installed."""
    write_atomically(folder / f"{name}.json", json.dumps(document, indent=2) + "\n")
    try:
        figure().savefig(folder / f"{name}.png", dpi=120)
    except MissingExtraError as error:
        logger.info("no picture: %s", error)


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
    tables = [report.effective(sharer, part) for part in PARTS]
    for layer in range(report.logits.shape[2]):
        cells = []
        for index in range(2):
            cells += [f"{report.logits[sharer, index, layer]:.2f}", f"{tables[index][layer].nanmean():.3f}"]
        table.add_row(str(layer), *cells)
    return table
