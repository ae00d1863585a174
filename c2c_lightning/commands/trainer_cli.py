"""`fit`, `validate`, `test` and `predict`: LightningCLI, each over the classes that it needs."""

import logging
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from rich.console import Console

from c2c_lightning.commands.parsing import (
    NOT_TEXT,
    HelpFormatter,
    ParserReady,
    is_parser_wanted,
    parser_of,
    with_suggestion,
)
from c2c_lightning.commands.run_classes import RUN_COMMANDS, RunCommand, load_class
from c2c_lightning.commands.run_config import (
    SaveRunConfig,
    check_last_checkpoint,
    check_processes,
    check_run_folder,
    located_checkpoint,
    refuse_nan,
    replace_text,
)
from c2c_lightning.commands.run_end import construction_error, is_refused_by_lightning, stop_message
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.training.callbacks.progress_bar import FitProgressBar
from c2c_lightning.training.callbacks.stop_on_signal import StopOnSignal
from c2c_lightning.training.checkpoint import AtomicCheckpointIO, Checkpoint
from c2c_lightning.training.lightning_internals import callbacks_of
from c2c_lightning.training.metrics_file import MetricsFile

logger = logging.getLogger(__name__)

RUN_FOLDER = "${trainer.default_root_dir}"
"""Placeholder of the run folder in the configuration of loggers and callbacks."""

PREDICT_HINT = " after `lightning export`, and name the exported directory"

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    # The data module gives each process its own batches.
    "use_distributed_sampler": False,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
}


class C2CLightningCLI(LightningCLI):
    """One of the Trainer's methods over a module and a data module."""

    command: str

    def __init__(
        self, command: str, args: Sequence[str], run: RunCommand | None = None, words: Sequence[str] = ()
    ) -> None:
        """Parse `args`, which begin with the command, and run it.

        Args:
            command: `fit`, `validate`, `test` or `predict`.
            args: command line.
            run: module and data module; default those of the command.
            words: the words that name the command to users, where they differ.
        """
        self.command, self.words = command, list(words) or [command]
        self.args = [*self.words, *args[1:]]
        run = run or RUN_COMMANDS[command]
        options = {
            "exit_on_error": False,
            "usage": f"lightning {' '.join(self.words)} --config FILE [--config FILE ...] [--KEY VALUE ...]",
            "description": run.about,
        }
        super().__init__(
            load_class(run.module),
            load_class(run.data),
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
            raise construction_error(problem) or problem from problem
        except TypeError as problem:
            if is_refused_by_lightning(problem):
                raise ConfigurationError(str(problem)) from problem
            raise

    def before_instantiate_classes(self) -> None:
        """Refuse values that are no numbers and an impossible run folder; fill in the run folder where it is named."""
        trainer = self.config[self.command]["trainer"]
        root = trainer["default_root_dir"]
        check_run_folder(str(root))
        refuse_nan(self.config[self.command])
        for key in ("logger", "callbacks"):
            trainer[key] = replace_text(trainer[key], RUN_FOLDER, str(root))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has unless the configuration brings its own.

        That is the bar, atomic checkpoint files and, in `fit`, `last.ckpt` and `metrics.csv` in the run folder.
        """
        config = self._get(self.config_init, "trainer", default={})
        for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
            if isinstance(value := config.get(name), int | float) and value <= 0:
                raise ConfigurationError(f"`trainer.{name}` must be above 0, but is {value}.")
        callbacks, plugins = as_list(config.get("callbacks")), as_list(config.get("plugins"))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(FitProgressBar())
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        has_checkpoint = any(isinstance(c, ModelCheckpoint) for c in callbacks)
        if self.command == "fit" and not has_checkpoint and config.get("enable_checkpointing") is not False:
            callbacks.append(Checkpoint(save_last=True))
        if not any(isinstance(c, StopOnSignal) for c in callbacks) and self.command != "fit":
            callbacks.append(StopOnSignal())
        loggers = self._loggers(config.get("logger"), config["default_root_dir"])
        trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, logger=loggers, **kwargs)
        check_processes(trainer)
        return trainer

    def _loggers(self, configured: Any, root: str) -> Any:
        """The configured loggers and, in `fit`, `metrics.csv`; Lightning's `CSVLogger` deletes an existing file."""
        if configured is False or (self.command != "fit" and configured in (None, True)):
            return False
        given = [] if configured in (None, True) else as_list(configured)
        loggers = [MetricsFile(part.log_dir) if type(part) is CSVLogger else part for part in given]
        has_file = self.command != "fit" or any(isinstance(part, MetricsFile) for part in loggers)
        return loggers if has_file else [*loggers, MetricsFile(root)]

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command; what Lightning refuses is one message, and a stop names the command that resumes.

        Raises:
            ConfigurationError: Lightning refuses a choice.
            SystemExit: a signal stopped the run.
        """
        try:
            super()._run_subcommand(subcommand)
        except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, OSError) as problem:
            self._exit_if_stopped()
            if is_refused_by_lightning(problem) and not isinstance(problem, OSError):
                logger.debug("refused by Lightning", exc_info=True)
                raise ConfigurationError(str(problem)) from problem
            raise
        except (KeyboardInterrupt, SystemExit):
            self._exit_if_stopped()
            raise

    def before_fit(self) -> None:
        """Name the checkpoint that will be continued."""
        self.model.continued_checkpoint = located_checkpoint(self._get(self.config_init, "ckpt_path"), self.trainer)

    def before_validate(self) -> None:
        """Refuse `--ckpt_path last` without a checkpoint, and name the one that will be loaded."""
        if self._get(self.config_init, "ckpt_path") == "last":
            check_last_checkpoint(self.trainer)
        self.before_fit()

    def _exit_if_stopped(self) -> None:
        """Exit as a stopped run does, if a signal stopped it."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, StopOnSignal) and callback.stopped is not None:
                stop = callback.stopped
                if self.trainer.is_global_zero:
                    text = stop_message(stop, self.args if self.command == "fit" else [], callback.patience)
                    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
                raise SystemExit(128 + stop.signum)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, with a suggestion for a misspelt key.

        Raises:
            ArgumentError: a key or value that does not fit.
            ParserReady: within `parser_of`.
        """
        if is_parser_wanted():
            raise ParserReady(self._subcommand_parsers[self.command])
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            raise with_suggestion(error, parser, *self._subcommand_parsers.values()) from error
        except UnicodeDecodeError as error:
            raise ArgumentError(None, NOT_TEXT) from error

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration: Lightning would let the checkpoint's hyperparameters replace it."""
        config = self.config[self.command]
        if self.command in ("test", "predict") and config.get("ckpt_path") is not None:
            raise ConfigurationError(
                f"`lightning {self.command}` loads fusers, not a training state: write `--model.fuser "
                f"{config.ckpt_path}` in place of `--ckpt_path`{PREDICT_HINT if self.command == 'predict' else ''}."
            )


def as_list(value: Any) -> list[Any]:
    """A list of what may be none, one or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def run_trainer(args: Sequence[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`."""
    if "--help.trainer" in args:
        show_trainer_options(run_parser(args[0]))
        return
    C2CLightningCLI(args[0], args)


def run_parser(command: str) -> ArgumentParser:
    """The parser of a command's options: `seed_everything`, `model`, `data`, `trainer`."""
    return parser_of(run_trainer, [command])


def show_trainer_options(parser: ArgumentParser) -> None:
    """Print the options of Lightning's Trainer alone."""
    parser._action_groups = [
        group
        for group in parser._action_groups
        if any(action.dest.startswith("trainer.") for action in group._group_actions)
    ]
    parser.print_help()
