"""`fit`, `validate`, `test` and `predict`: LightningCLI, each over the classes that it needs."""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from c2c_lightning.errors import C2CError, ConfigurationError, MissingExtraError
from c2c_lightning.training.callbacks._utils import is_trial
from c2c_lightning.training.callbacks.progress_bar import FitProgressBar
from c2c_lightning.training.checkpoint import AtomicCheckpointIO

EXAMPLES = {
    "fit": "configs/fit/quickstart.yaml",
    "validate": "configs/fit/quickstart.yaml --ckpt_path runs/quickstart/checkpoints/last.ckpt",
    "test": "configs/eval/quickstart.yaml",
    "predict": "configs/predict/quickstart.yaml",
}
HELP = """\
Examples:
  lightning {command} --config {example}
  lightning {command} --config RUN.yaml --config OVERLAY.yaml --trainer.devices 2
  lightning {command} --config RUN.yaml --print_config      what a run would use
  lightning {command} --model.KEY.help CLASS                options of a class
A later --config and later options win over earlier ones. Write options in full."""

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    # The data module gives each process its own batches.
    "use_distributed_sampler": False,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
}


# Packages that loggers need, and the extra of this package that brings them.
EXTRAS = {"wandb": "wandb", "tensorboard": "tensorboard"}


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the examples."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration into the run folder and to every logger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Overwrite: a resumed run has the same folder."""
        super().__init__(*args, **{**kwargs, "overwrite": True})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write into the run folder; a logger's folder may be shared by many runs."""
        if self.already_saved or is_trial(trainer):
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

    def __init__(self, command: str, module: Any, data: Any, args: Sequence[str], about: str) -> None:
        """Parse `args`, which begin with the command, and run it.

        Args:
            command: `fit`, `validate`, `test` or `predict`.
            module: class of the Lightning module.
            data: class of the data module.
            args: command line.
            about: what the command does, for its help.
        """
        self.command = command
        options = {
            "exit_on_error": False,
            "usage": f"lightning {command} --config FILE [--config FILE ...] [--KEY VALUE ...]",
            "description": f"{about}\n\n{HELP.format(command=command, example=EXAMPLES[command])}",
        }
        super().__init__(
            module,
            data,
            save_config_callback=SaveRunConfig,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            # Errors come to `main`, which prints them without the usage text of some sixty lines.
            parser_kwargs={"exit_on_error": False, "formatter_class": HelpFormatter, command: options},
            auto_configure_optimizers=False,
            args=list(args),
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

    def instantiate_classes(self) -> None:
        """Make everything that the configuration names.

        Raises:
            MissingExtraError: one of the loggers or callbacks needs a package that is not installed.
            ConfigurationError: a part refuses its values.
        """
        try:
            super().instantiate_classes()
        except (ImportError, ValueError) as problem:
            raise user_error(problem) or problem from problem

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has unless the configuration brings its own: the bar, and checkpoints that are whole."""
        config = self._get(self.config_init, "trainer", default={})
        callbacks, plugins = as_list(config.get("callbacks")), as_list(config.get("plugins"))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(FitProgressBar())
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration: Lightning would lay the checkpoint's hyperparameters over it."""


def user_error(problem: Exception) -> C2CError | None:
    """What a user can mend about a part that could not be made; None for a fault of ours.

    jsonargparse wraps what a constructor raises into a ValueError, sometimes twice.
    """
    for package, extra in EXTRAS.items():
        if f"Requirement '{package}" in str(problem) or f"No module named '{package}" in str(problem):
            return MissingExtraError(f"{package} is not installed: pip install 'c2c-lightning[{extra}]'")
    inner: BaseException = problem
    while not isinstance(inner, C2CError) and (inner.__cause__ or inner.__context__) is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    if isinstance(inner, C2CError):
        return inner
    return ConfigurationError(str(inner)) if isinstance(inner, ValueError) else None


def as_list(value: Any) -> list[Any]:
    """A list of what may be none, one or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def run_fit(args: Sequence[str]) -> None:
    """`lightning fit` and `lightning validate`."""
    from c2c_lightning.data.datamodule import InstructionDataModule
    from c2c_lightning.training.module import C2CModule

    about = "Train a fuser." if args[0] == "fit" else "Loss of a fuser, and of the receiver alone, on the same tokens."
    C2CLightningCLI(args[0], C2CModule, InstructionDataModule, args, about)


def run_test(args: Sequence[str]) -> None:
    """`lightning test`."""
    from c2c_lightning.evaluation.evaluation_module import BenchmarkDataModule, EvaluationModule

    about = "Benchmarks over responders: receiver, sharer, T2T, routing, C2C, controls."
    C2CLightningCLI(args[0], EvaluationModule, BenchmarkDataModule, args, about)


def run_predict(args: Sequence[str]) -> None:
    """`lightning predict`."""
    from c2c_lightning.prediction.prediction_module import ConversationDataModule, PredictionModule

    about = "Write a fuser's answers to a file of conversations."
    C2CLightningCLI(args[0], PredictionModule, ConversationDataModule, args, about)
