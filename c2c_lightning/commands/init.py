"""`lightning init`: a first configuration for models and data of one's own."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError
from rich.console import Console

from c2c_lightning.commands.first_config import FirstConfig
from c2c_lightning.commands.init_checks import (
    CHECKED_ROWS,
    Rows,
    aligned,
    alignment_text,
    check_rows,
    encoder_of,
    kv_width,
    model_spec,
)
from c2c_lightning.commands.new_file import write_new
from c2c_lightning.commands.parsing import CommandParser, HelpFormatter
from c2c_lightning.commands.trial_steps import Trial, run_trial
from c2c_lightning.data.encode import Encoder
from c2c_lightning.errors import C2CError, ConfigurationError
from c2c_lightning.model.lm_spec import LMSpec

Answer = TypeVar("Answer")

ABOUT = """\
Write a configuration that trains a fuser between your models on your rows.

Loads the models, aligns their tokenizers on the rows, trains a few steps, and prints sizes and times to expect; then
writes a YAML file of at most 20 lines. Asks in a terminal for options that are not given. Writes nothing on failure.

Example:
  lightning init --receiver Qwen/Qwen3-0.6B --sharer Qwen/Qwen2.5-0.5B-Instruct --data rows.jsonl --output mine.yaml"""

QUESTIONS = {
    "receiver": "Receiver, the model that answers (directory or hub id)",
    "sharer": "Sharer, a model that shares its KV-cache (directory or hub id)",
    "data": "Rows to train on (JSON lines, Parquet, CSV, or a hub data set)",
}


def init_parser() -> CommandParser:
    """The options of the command."""
    parser = CommandParser(prog="lightning init", description=ABOUT, formatter_class=HelpFormatter)
    parser.add_argument("--receiver", help=QUESTIONS["receiver"])
    parser.add_argument("--sharer", action="append", help=f"{QUESTIONS['sharer']}; may be repeated")
    parser.add_argument("--data", help=QUESTIONS["data"])
    parser.add_argument("--output", default="c2c.yaml", help="YAML file to write")
    parser.add_argument("--run_folder", help="folder of the run; default `runs/` and the name of the file")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    return parser


def run_init(args: Sequence[str]) -> None:
    """Ask for what is not given, check it, and write the configuration."""
    options = init_parser().options(args[1:])
    output = Path(options.output)
    _refuse(options, output)
    console = Console()
    config = _checked(options, options.run_folder or f"runs/{output.stem}", console)
    trial = run_trial(config)
    for name, spec, count in zip(
        _names(config), (config.receiver, *config.sharers), trial.model_parameters, strict=True
    ):
        _say(console, name, f"{spec.path}: {_millions(count)} parameters")
    expectation = expectation_of(config, trial)
    _say(console, "run", expectation)
    write_new(output, config.render(str(output), expectation))
    _say(console, "written", f"{output}. Next: lightning fit --config {output}")


def _refuse(options: Any, output: Path) -> None:
    """Refuse to replace a file, and to ask questions without a terminal."""
    if output.is_dir():
        raise ConfigurationError(f"`--output` is {output}, a folder. Name a YAML file.")
    if output.exists() and not options.force:
        raise ConfigurationError(f"{output} exists already. Name another `--output`, or add `--force`.")
    lacking = [f"--{name}" for name in QUESTIONS if not getattr(options, name)]
    if lacking and not sys.stdin.isatty():
        raise ArgumentError(None, f"{' and '.join(lacking)} must be given: there is no terminal to ask in.")


def _checked(options: Any, run_folder: str, console: Console) -> FirstConfig:
    """The configuration of models and rows that have passed all checks but the training."""
    receiver, sharers = _models(options)
    encoder, alignment = encoder_of(receiver, sharers)
    rows = _rows(options.data, encoder)
    config = FirstConfig(receiver, sharers, rows.source, rows.count, kv_width(receiver), alignment, run_folder)
    _say(console, "rows", f"{_rows_text(rows)}, by the source {rows.source.kind.__name__}")
    for name, sharer in zip(_names(config)[1:], aligned(encoder, rows), strict=True):
        _say(console, name, alignment_text(sharer))
    return config


def _models(options: Any) -> tuple[LMSpec, tuple[LMSpec, ...]]:
    """Receiver and sharers, of the command line or asked for."""
    receiver = model_spec(options.receiver) if options.receiver else ask(QUESTIONS["receiver"], model_spec)
    if options.sharer:
        return receiver, tuple(model_spec(path) for path in options.sharer)
    sharers = [ask(QUESTIONS["sharer"], model_spec)]
    while another := ask("Another sharer (empty: no)", lambda path: model_spec(path) if path else None):
        sharers.append(another)
    return receiver, tuple(sharers)


def _rows(path: str | None, encoder: Encoder) -> Rows:
    """The rows, of the command line or asked for."""
    return check_rows(path, encoder) if path else ask(QUESTIONS["data"], lambda answer: check_rows(answer, encoder))


def ask(question: str, check: Callable[[str], Answer]) -> Answer:
    """Ask until the answer passes a check."""
    while True:
        try:
            return check(input(f"{question}: ").strip())
        except C2CError as error:
            Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        except (EOFError, KeyboardInterrupt):
            Console(stderr=True).print("\nNothing was written.")
            raise SystemExit(130) from None


def expectation_of(config: FirstConfig, trial: Trial) -> str:
    """Sizes and times to expect, in one line."""
    memory = "" if trial.peak_bytes is None else f", {trial.peak_bytes / 2**30:.1f} GiB of its memory"
    total = trial.seconds * config.max_steps
    return (
        f"Fuser of {_millions(trial.fuser_parameters)} parameters ({_bytes(4 * trial.fuser_parameters)} on disk); "
        f"{config.max_steps:,} steps of {config.batch_size} rows, {trial.seconds:.2g} s each, "
        f"about {_duration(total)} on this {trial.device.type}{memory}."
    )


def _rows_text(rows: Rows) -> str:
    count = "a stream" if rows.count is None else f"{rows.count:,} rows"
    unreadable = f", {len(rows.rejected)} unreadable in the first {CHECKED_ROWS:,}" if rows.rejected else ""
    return f"{count}{unreadable}"


def _names(config: FirstConfig) -> list[str]:
    several = len(config.sharers) > 1
    return ["receiver", *(f"sharer {number}" if several else "sharer" for number, _ in enumerate(config.sharers, 1))]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M" if count < 1e8 else f"{count / 1e6:,.0f} M"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(console: Console, name: str, text: str) -> None:
    console.print(f"{name:<10}{text}", markup=False, highlight=False, soft_wrap=True)
