"""Log lines of the command line: ours one line each, libraries only with what concerns the user."""

import logging
import os
import time
import warnings
from collections.abc import Sequence

from c2c_lightning.error_console import ERROR_CONSOLE

VERBOSE = "--verbose"
"""Word of the command line that lets libraries speak."""

#: Beginnings of messages of Lightning that say nothing about this run.
_NOISE = (
    "GPU available",
    "TPU available",
    "HPU available",
    "\U0001f4a1 Tip",
    "Tip: ",
    "Restored all states",
    "----------",
    "Initializing distributed",
)

_QUIET_WARNINGS = (
    # It warns of arguments from Python where the command line has some: here they are the same.
    "LightningCLI's args parameter is intended",
    r".*treespec, LeafSpec.*is deprecated",
    # Workers are chosen by `data.num_workers`; small data needs none.
    r".*does not have many workers which may be a bottleneck",
    # Validation losses are metrics that are reduced over all processes already.
    r"It is recommended to use `self\.log\(.*sync_dist=True",
    "Grad strides do not match bucket view strides",
    # A resumed run writes into its own folder; a new run moves earlier output aside, with a message.
    r"Checkpoint directory .* exists and is not empty",
    # `LogInterval` logs short runs often enough.
    r"The number of training batches .* is smaller than the logging interval",
)

#: Commands that import transformers, and those that import datasets too.
_READS_TABLES = ("init", "fit", "validate", "test", "predict", "analyze", "oracle", "fuser-hub")
_LOADS_MODELS = (*_READS_TABLES, "chat", "serve", "sharer", "bench", "lm-eval")


class TerminalHandler(logging.Handler):
    """Prints records as one line each, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the time, the level if it is a warning or worse, and the message."""
        if record.levelno < logging.WARNING and process_rank() > 0:
            return
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {level}{self.format(record)}"
        style = "yellow" if level else None
        ERROR_CONSOLE.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def process_rank() -> int:
    """The number of this process among those of a run, which launchers tell their processes."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 0)


def configure_logging(is_verbose: bool) -> None:
    """Log to the terminal; unless verbose, without messages of libraries that say nothing about this run."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(TerminalHandler())
        root.setLevel(logging.INFO)
    if is_verbose:
        return
    for noisy in ("httpx", "datasets", "fsspec", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_about_this_run)
    for message in _QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message)


def adopt_libraries(args: Sequence[str], is_verbose: bool) -> None:
    """After the import of a command: Lightning logs through our handler alone; unless verbose, bars are off."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # Lightning adds handlers of its own at import, which would write into the line of the progress bar.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    if not is_verbose:
        quiet_bars(args)


def quiet_bars(args: Sequence[str]) -> None:
    """Turn off the bars of libraries that load weights and tables; those of downloads stay.

    Only for commands that import these libraries anyway.
    """
    if not _loads_models(args) or {"-h", "--help"} & set(args):
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if args[0] in _READS_TABLES:
        import datasets

        datasets.disable_progress_bars()


def _loads_models(args: Sequence[str]) -> bool:
    # `doctor` must run where transformers cannot be imported, unless it is asked about a model.
    asks_doctor = args[0] == "doctor" and any(word.partition("=")[0] == "--model" for word in args)
    return args[0] in _LOADS_MODELS or asks_doctor


def _is_about_this_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISE)
