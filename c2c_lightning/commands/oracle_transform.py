"""`lightning oracle transform`: trains maps from a sharer's cache to a receiver's, and measures them."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.progress import track

from c2c_lightning.analysis.transform.entry_mixing import FOLDS, require_sklearn
from c2c_lightning.analysis.transform.sample_scores import SampleScores, score_batch
from c2c_lightning.analysis.transform.transform_picture import embed_samples, transform_figure
from c2c_lightning.analysis.transform.transform_report import ReportFacts, mixing_scores, transform_report
from c2c_lightning.commands.parsing import parser_of
from c2c_lightning.commands.run_classes import ORACLE_RUNS
from c2c_lightning.commands.trainer_cli import C2CLightningCLI, show_trainer_options
from c2c_lightning.commands.transform_table import NOTES, entry_table, loss_table
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError, DataError, MissingExtraError
from c2c_lightning.evaluation.prediction_log import write_atomically
from c2c_lightning.training.lightning_internals import callbacks_of
from c2c_lightning.training.run_folder import FinalOutput
from c2c_lightning.training.transform_module import TransformModule

logger = logging.getLogger(__name__)

WORDS = ("oracle", "transform")

_PER_FOLD = 4  # samples in each fold of the classifier, at least


@dataclass(frozen=True)
class TransformMeasurement:
    """What is measured after training.

    Attributes:
        samples: held-out rows, one point each; `data.max_validation_rows` is set to it.
        perplexity: of the t-SNE picture; below the number of samples.
    """

    samples: int = 300
    perplexity: float = 50.0

    def __post_init__(self) -> None:
        """Refuse a picture of too few samples.

        Raises:
            ConfigurationError: names both numbers.
        """
        if self.samples < _PER_FOLD * FOLDS:
            least = _PER_FOLD * FOLDS
            raise ConfigurationError(f"`measure.samples` is {self.samples}, but must be at least {least}.")
        if not 1 <= self.perplexity < self.samples:
            raise ConfigurationError(
                f"`measure.perplexity` is {self.perplexity:g}, but must be at least 1 and below the number of samples, "
                f"which is {self.samples}. Lower the perplexity, or raise `measure.samples`."
            )


class MeasureTransform(FinalOutput):
    """Measures trained maps on the held-out rows; writes `transform.json` and `transform.png` into the run folder."""

    def __init__(self, settings: TransformMeasurement, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def outputs(self, trainer: Trainer) -> list[Path]:
        """See `FinalOutput.outputs`."""
        return [Path(trainer.default_root_dir) / f"transform.{suffix}" for suffix in ("json", "png")]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hold out as many rows as are measured."""
        _data_of(trainer).max_validation_rows = self.settings.samples

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to train with too few held-out rows.

        Raises:
            DataError: names both numbers.
        """
        rows = _data_of(trainer).report.validation_rows
        if rows < self.settings.samples:
            raise DataError(
                f"{rows} rows are held out, but `measure.samples` is {self.settings.samples}. Raise "
                "`data.validation_share`, name a `data.validation` with more rows, or lower `measure.samples`."
            )
        super().on_train_start(trainer, pl_module)

    @torch.no_grad()
    def write(self, trainer: Trainer, module: TransformModule) -> dict[str, Any]:
        """Measure, and write numbers and picture; the numbers."""
        model, (numbers, picture) = module.model.eval(), self.outputs(trainer)
        model.to(model.receiver.device)
        maps, generator = model.maps(), torch.Generator().manual_seed(self.seed)
        batches = list(_data_of(trainer).held_out_batches())
        tracked = _tracked("held-out text")(batches)
        scores = SampleScores.join([score_batch(model, maps, batch, generator) for batch in tracked])
        mixing = mixing_scores(scores, len(model.pair.layers), self.seed, _tracked("neighbours and classifiers"))
        report = transform_report(scores, mixing, self._facts(trainer, module))
        _draw(scores, report, picture)
        write_atomically(numbers, json.dumps(report, indent=2) + "\n")
        return report

    def _facts(self, trainer: Trainer, module: TransformModule) -> ReportFacts:
        count = module.model.layers("keys")[0].moments.count
        return ReportFacts(
            receiver=module.receiver_spec.path,
            sharer=module.sharer_spec.path,
            layers=module.model.pair.layers,
            steps=trainer.global_step,
            train_tokens=int(count) * trainer.world_size,
            perplexity=self.settings.perplexity,
            seed=self.seed,
        )


class TransformCLI(C2CLightningCLI):
    """`lightning fit` for the maps, followed by the measurement."""

    def __init__(self, args: Sequence[str]) -> None:
        """Parse the arguments after `oracle transform`, and run it."""
        super().__init__("fit", ["fit", *args], ORACLE_RUNS[" ".join(WORDS)], WORDS)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of the measurement."""
        parser.add_class_arguments(TransformMeasurement, "measure")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that holds out rows for the measurement."""
        require_sklearn()
        trainer = super().instantiate_trainer(**kwargs)
        self.measurement = MeasureTransform(
            self._get(self.config_init, "measure"), int(self._get(self.config, "seed_everything"))
        )
        # First, so that too few rows are refused before earlier output is moved.
        callbacks_of(trainer).insert(0, self.measurement)
        return trainer

    def after_fit(self) -> None:
        """Measure."""
        if not self.trainer.is_global_zero or not self.measurement.may_write(self.trainer):
            return
        report = self.measurement.write(self.trainer, self.model)
        for table in (entry_table(report, "last"), entry_table(report, "mean"), loss_table(report)):
            Console().print(table)
        Console().print(NOTES, highlight=False)


def run_transform(args: Sequence[str]) -> None:
    """Maps from the sharer's cache to the receiver's: MLP, ridge and mean, with t-SNE (paper, Fig. 3)."""
    if "--help.trainer" in args:
        return show_trainer_options(parser_of(lambda words: run_transform([]), WORDS))
    TransformCLI(args)


def _data_of(trainer: Trainer) -> InstructionDataModule:
    return trainer.datamodule  # type: ignore[attr-defined, no-any-return]


def _tracked(name: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    return lambda items: track(items, name, console=ERROR_CONSOLE, transient=True)


def _draw(scores: SampleScores, report: Mapping[str, Any], path: Path) -> None:
    """The picture, where matplotlib is installed."""
    try:
        planes = embed_samples(scores, report["perplexity"], report["seed"])
        transform_figure(planes, report).savefig(path, dpi=110)
    except MissingExtraError as error:
        logger.info("no picture: %s", error)
