"""`lightning export --prune` and `--drop_layers`: a fuser without some of its layers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from c2c_lightning.analysis.layer_ablation import ablate, num_measured, pruned_model
from c2c_lightning.analysis.row_scores import RowScore, row_score
from c2c_lightning.commands.dropped_layers import read_dropped_layers
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.preprocessing.row_encoder import training_batches
from c2c_lightning.data.sources.chat import Messages
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.export.from_checkpoint import export_checkpoint
from c2c_lightning.fuser.pruning import closed_layers, fused_layers, num_bytes
from c2c_lightning.model.c2c import C2CModel

logger = logging.getLogger(__name__)

BATCH_SIZE, MAX_ROWS = 32, 1024


def load_for_pruning(ckpt_path: str | None, fuser: str | None) -> C2CModel:
    """The fused model of a checkpoint or of a fuser directory, with its language models."""
    if ckpt_path is None:
        return C2CModel.from_pretrained(str(fuser))
    with TemporaryDirectory() as folder:
        export_checkpoint(Path(ckpt_path), Path(folder) / "fuser")
        return C2CModel.from_pretrained(Path(folder) / "fuser")


@dataclass(frozen=True)
class Pruning:
    """Which layers are removed.

    Attributes:
        rule: `closed` (layers whose gates are closed, without any loss) or `measured` (see `analysis.layer_ablation`);
            None for the layers that `drop_layers` names.
        drop_layers: see `commands.dropped_layers`.
        rows: file of conversations that accuracy is measured on; needed for `measured`.
        keep: largest number of layers that `measured` keeps.
    """

    rule: str | None = None
    drop_layers: str | None = None
    rows: str | None = None
    keep: int | None = None

    def layers(self, model: C2CModel, batches: Sequence[TrainingBatch]) -> list[set[int]]:
        """For each sharer the receiver layers to remove."""
        if self.drop_layers is not None:
            return read_dropped_layers(self.drop_layers, model.fuser)
        if self.rule == "closed":
            return closed_layers(model.fuser)
        with Progress(console=ERROR_CONSOLE) as progress:
            task = progress.add_task("Layers", total=num_measured(model.fuser))
            return ablate(model, batches, self.keep, lambda: progress.advance(task)).dropped


def prune(model: C2CModel, pruning: Pruning, output_dir: Path, overwrite: bool = False) -> None:
    """Write a pruned fuser, and print what it saves and costs.

    Args:
        model: the fused model.
        pruning: which layers are removed.
        output_dir: fuser directory to write.
        overwrite: whether a fuser with other weights may be replaced.

    Raises:
        DataError: no rows.
        FuserConfigError: no layer would be left, or an unknown layer is named.
    """
    rows = pruning.rows
    batches = [] if rows is None else training_batches(Messages(rows), model.encoder, MAX_ROWS, BATCH_SIZE)
    dropped = pruning.layers(model, batches)
    before = row_score(model, batches) if batches else None
    small = pruned_model(model, dropped)
    after = row_score(small, batches) if batches else None
    small.training_record = _record(model, small, before, after)
    small.save_pretrained(output_dir, overwrite)
    Console().print(_table(model, small, before, after))


def _record(model: C2CModel, small: C2CModel, before: RowScore | None, after: RowScore | None) -> TrainingRecord:
    record = model.training_record or TrainingRecord()
    results: dict[str, float] = {"pruned/layers": _num_layers(small), "pruned/bytes": num_bytes(small.fuser)}
    if before is not None and after is not None:
        results |= {"pruned/accuracy_before": before.accuracy, "pruned/accuracy_after": after.accuracy}
    return replace(record, results={**record.results, **results})


def _num_layers(model: C2CModel) -> int:
    return sum(len(layers) for layers in fused_layers(model.fuser))


def _table(model: C2CModel, small: C2CModel, before: RowScore | None, after: RowScore | None) -> Table:
    table = Table("", "whole", "pruned")
    table.add_row("fused layers", *(str(_num_layers(m)) for m in (model, small)))
    table.add_row("bytes", *(f"{num_bytes(m.fuser):,}" for m in (model, small)))
    if before is not None and after is not None:
        table.add_row("accuracy", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}")
    return table
