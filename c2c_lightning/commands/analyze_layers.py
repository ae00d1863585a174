"""`lightning analyze layers`: the part of each layer, gate and head in the answers, and a pruning list."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from c2c_lightning.analysis.fusion_mask import FusedUnit
from c2c_lightning.analysis.layer_picture import layer_figure
from c2c_lightning.analysis.layer_report import (
    UNITS,
    WHOLE,
    Change,
    LayerReport,
    Masks,
    PruningList,
    UnitKind,
    layer_report,
    measure,
    pruning_list,
    pruning_masks,
    unit_masks,
)
from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.analysis.row_scores import RowScores
from c2c_lightning.commands.fuser_analysis import check_sharer, digest_of, fuser_parser, only_source, write_analysis
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.preprocessing.row_encoder import training_batches
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.load_models import fuser_fingerprint, load_fused
from c2c_lightning.model.c2c import C2CModel


def analyze_layers(args: Sequence[str]) -> None:
    """Each layer's, gate's and head's part in the answers, closed alone and opened alone, and a pruning list."""
    parser = fuser_parser("layers", analyze_layers.__doc__, max_rows=256)
    parser.add_argument(
        "--units", type=list[UnitKind], default=list(UNITS), help="what is closed and opened: layers, gates, heads"
    )
    parser.add_argument(
        "--max_accuracy_drop", type=float, default=0.01, help="fall of the accuracy that the pruning list may cost"
    )
    parser.add_argument(
        "--max_lost_gain", type=float, default=0.05, help="likewise share of what the fuser lowers the loss by"
    )
    options = parser.options(args)
    if not options.units or options.batch_size < 1:
        raise ConfigurationError("`units` must name at least one of layer, gate, head, and `batch_size` be 1 or more.")
    source, model = only_source(options), load_fused(options.fuser)
    check_sharer(model, options.sharer)
    batches = training_batches(source, model.encoder, options.max_rows, options.batch_size)
    units = [unit for kind in UNITS if kind in options.units for unit in UNITS[kind](model.fuser)]
    settings = {"fuser": fuser_fingerprint(options.fuser), "rows": digest_of(batches), "units": options.units}
    folder = Path(options.output_dir)
    run = LayerRun(model, batches, MeasurementLog(folder / "layers.jsonl", settings))
    report, pruning = _report(run, units, options)
    document = {"version": 1, "fuser": options.fuser, "source": source.name, **report.to_json()}
    if pruning is not None:
        document |= {"drop_layers": pruning.drop_layers, "pruning": pruning.to_json()}
    write_analysis(folder, "layers", document, lambda: layer_figure(report, pruning, options.sharer))
    console = Console()
    console.print(_table(report, source.name))
    if pruning is not None:
        console.print(_advice(pruning, options.fuser, folder / "layers.json"), markup=False, highlight=False)


def _report(run: "LayerRun", units: Sequence[FusedUnit], options: Any) -> tuple[LayerReport, PruningList | None]:
    """The report, and the pruning list where layers are measured."""
    fuser = run.model.fuser
    scores = run.measure("units", unit_masks(fuser, units))
    report = layer_report(fuser, units, scores)
    if "layer" not in options.units:
        return report, None
    order = report.removal_order
    removed = run.measure("pruning", pruning_masks(fuser, order))
    gain = report.whole.log_likelihood - report.none.log_likelihood
    bounds = options.max_accuracy_drop, options.max_lost_gain * max(0.0, gain)
    return report, pruning_list(fuser, order, removed, scores[WHOLE], *bounds)


@dataclass
class LayerRun:
    """Measurements of all rows, with a progress bar; a batch that the log knows is not measured again."""

    model: C2CModel
    batches: Sequence[TrainingBatch]
    log: MeasurementLog
    _progress: Progress = field(default_factory=lambda: Progress(console=ERROR_CONSOLE, transient=True))

    def measure(self, name: str, masks: Masks) -> Mapping[str, RowScores]:
        """The scores of all rows in all measurements."""
        total = {measured: RowScores() for measured in masks}
        with self._progress as progress:
            task = progress.add_task(f"Layers: {name}", total=len(masks) * len(self.batches))
            for number in range(len(self.batches)):
                found = self._batch(f"{name} {number}", number, masks, progress, task)
                total = {measured: scores + RowScores(**found[measured]) for measured, scores in total.items()}
        return total

    def _batch(self, key: str, number: int, masks: Masks, progress: Progress, task: TaskID) -> dict[str, Any]:
        if key not in self.log:
            scores = measure(self.model, self.batches[number], masks, lambda: progress.advance(task))
            self.log.add(key, {measured: asdict(score) for measured, score in scores.items()})
        progress.update(task, completed=(number + 1) * len(masks))
        found: dict[str, Any] = self.log[key]
        return found


def _table(report: LayerReport, name: str) -> Table:
    """Changes of accuracy and loss, closed and opened."""
    whole, none = (f"{100 * s.accuracy:.1f} %, {-s.log_likelihood:.3f} nats" for s in (report.whole, report.none))
    title = f"{name}: {report.rows} rows; whole fuser {whole}; nothing fused {none}"
    table = Table("unit", title=title, title_justify="left")
    for column in ("closed: accuracy", "loss", "opened: accuracy", "loss"):
        table.add_column(f"{column} (95 %)", justify="right")
    for effect in report.effects:
        shown = effect.unit.name if effect.is_open else f"{effect.unit.name} (gates closed)"
        table.add_row(shown, *_cells(effect.closed), *_cells(effect.opened))
    return table


def _cells(change: Change) -> tuple[str, str]:
    accuracy = " ".join(f"{100 * end:+.1f}" for end in change.accuracy_ci95)
    loss = " ".join(f"{end:+.3f}" for end in change.loss_ci95)
    return f"{100 * change.accuracy:+.1f} ({accuracy})", f"{change.loss:+.3f} ({loss})"


def _advice(pruning: PruningList, fuser: str, file: Path) -> str:
    """The pruning list, and the command that applies it."""
    dropped = [f"{n}:{layer}" for n, layers in enumerate(pruning.drop_layers) for layer in layers]
    if not dropped:
        return "No layer can be removed within the bounds: each one is missed, or opens where others close."
    return (
        f"Layers (sharer:layer) that are not missed, removed together: {', '.join(dropped)}. To remove them:\n"
        f"  lightning export --fuser {fuser} --drop_layers {file} --output_dir DIR"
    )
