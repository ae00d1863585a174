"""`fit`, `validate`, `test` and `predict`: LightningCLI, each over the classes that it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    # The data module gives each process its own batches.
    "use_distributed_sampler": False,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
}


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration into the run folder and to every logger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Overwrite: a resumed run has the same folder."""
        super().__init__(*args, **{**kwargs, "overwrite": True})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write into the run folder; a logger's folder may be shared by many runs."""
        if self.already_saved or trainer.fast_dev_run:
            return
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{TrainerFn(stage).value}_config.yaml").write_text(
                self.parser.dump(self.config, skip_none=False)
            )
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Plain values to the loggers: W&B shows them as the run's config."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            logger.log_hyperparams({"cli": config})


class C2CLightningCLI(LightningCLI):
    """One of the Trainer's methods over a module and a data module."""

    command: str

    def __init__(self, command: str, module: Any, data: Any, args: Sequence[str], **kwargs: Any) -> None:
        """Parse `args`, which begin with the command, and run it."""
        self.command = command
        super().__init__(
            module,
            data,
            save_config_callback=SaveRunConfig,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            # Errors come to `main`, which prints them without the usage text of some sixty lines.
            parser_kwargs={"exit_on_error": False, command: {"exit_on_error": False}},
            auto_configure_optimizers=False,
            args=list(args),
            **kwargs,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one command that was asked for."""
        dataloaders = {"train_dataloaders", "val_dataloaders"} if self.command == "fit" else {"dataloaders"}
        return {self.command: {"model", "datamodule", *dataloaders}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that calls the program by its name."""
        parser = super().init_parser(**kwargs)
        parser.prog = "lightning"
        return parser

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration: Lightning would lay the checkpoint's hyperparameters over it."""


def run_fit(args: Sequence[str]) -> None:
    """`lightning fit` and `lightning validate`."""
    from c2c_lightning.data.datamodule import InstructionDataModule
    from c2c_lightning.training.module import C2CModule

    C2CLightningCLI(args[0], C2CModule, InstructionDataModule, args)


def run_test(args: Sequence[str]) -> None:
    """`lightning test`."""
    from c2c_lightning.evaluation.module import BenchmarkDataModule, EvaluationModule

    C2CLightningCLI(args[0], EvaluationModule, BenchmarkDataModule, args)


def run_predict(args: Sequence[str]) -> None:
    """`lightning predict`."""
    from c2c_lightning.training.prediction import ConversationDataModule, PredictionModule

    C2CLightningCLI(args[0], PredictionModule, ConversationDataModule, args)
