"""`lightning analyze tokens`: which fused tokens decide the answer to one question."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from c2c_lightning.analysis.token_effects import PromptPart, TokenEffects, share_of_gain, token_effects
from c2c_lightning.analysis.token_page import html_page, terminal_text, token_figure
from c2c_lightning.commands.fuser_analysis import write_analysis
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.data.messages import Conversation, with_context
from c2c_lightning.data.preprocessing.row_encoder import prompts_of
from c2c_lightning.data.sources import Source
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.load_models import load_fused
from c2c_lightning.evaluation.prediction_log import write_atomically
from c2c_lightning.model.c2c import C2CModel


def analyze_tokens(args: Sequence[str]) -> None:
    """Which fused tokens decide one answer: the fusion of one token, or of one message, is left out at a time."""
    parser = CommandParser(prog="lightning analyze tokens", description=analyze_tokens.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory, hub id or checkpoint")
    parser.add_argument("--question", type=str | None, help="the question; default a row of `sources`")
    parser.add_argument("--document", type=str | None, help="file of a text that the sharers read before the question")
    parser.add_argument("--sources", type=list[Source] | None, help="conversations, as in `lightning fit`")
    parser.add_argument("--row", type=int, default=0, help="number of the conversation in the first source, from 0")
    parser.add_argument("--answer", type=str | None, help="answer that is measured; default the fused model's own")
    parser.add_argument("--batch_size", type=int, default=32, help="variants of the prompt in one pass")
    parser.add_argument("--output_dir", type=str, default="runs/tokens", help="folder of tokens.json, .html and .png")
    options = parser.options(args)
    if options.batch_size < 1:
        raise ConfigurationError(f"`batch_size` is {options.batch_size}, but must be at least 1.")
    document = _document(options)
    if options.question is None and not options.sources:
        raise ConfigurationError("nothing is asked: give --question, or `sources` with --row.")
    model = load_fused(options.fuser)
    conversation, sharers = _prompt(model, options, document)
    with Progress(console=ERROR_CONSOLE, transient=True) as progress:
        task = progress.add_task("Tokens", total=None)
        effects = token_effects(
            model, conversation, sharers, options.answer, options.batch_size, lambda n: progress.advance(task, n)
        )
    folder, asked = Path(options.output_dir), str(conversation[-1]["content"])
    write_analysis(folder, "tokens", effects.to_json(), lambda: token_figure(effects))
    write_atomically(folder / "tokens.html", html_page(effects, asked))
    _show(effects)


def _document(options: Namespace) -> str | None:
    if options.document is None:
        return None
    if options.question is None:
        raise ConfigurationError("--document belongs to --question; rows have a `sharer_context` of their own.")
    try:
        return Path(options.document).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--document {options.document} cannot be read: {error}.") from error


def _prompt(model: C2CModel, options: Namespace, document: str | None) -> tuple[Conversation, Any]:
    """The receiver's conversation and that of the sharers."""
    if options.question is not None:
        question = {"role": "user", "content": options.question}
        return [question], None if document is None else with_context(document, [question])
    rows = list(islice(prompts_of(options.sources[0], model.encoder), max(0, options.row), options.row + 1))
    if options.row < 0 or not rows:
        raise ConfigurationError(f"{options.sources[0].name} has no conversation {options.row} that can be read.")
    return rows[0]


def _show(effects: TokenEffects) -> None:
    """The coloured prompt, and a table of its messages."""
    console = Console()
    console.print(terminal_text(effects))
    table = Table("message", title=f"answer: {effects.answer}", title_justify="left")
    for column in ("nats", "of the fusion's gain", "decides"):
        table.add_column(column, justify="right")
    for part in effects.messages:
        table.add_row(part.text, *_cells(effects, part))
    console.print(table)
    console.print(
        f"log-probability {effects.log_likelihood:.3f} nats on the fused cache, {effects.unfused:.3f} without fusion; "
        "green tokens support the answer, red ones oppose it, grey ones are not fused, underlined ones decide it",
        highlight=False,
    )


def _cells(effects: TokenEffects, part: PromptPart) -> tuple[str, str, str]:
    """Effect in nats, its share of the whole fusion's, and whether the answer changes without it."""
    if part.effect is None:
        return "not fused", "", ""
    share = share_of_gain(effects, part)
    shown = "" if share is None else f"{share:.0%}"
    return f"{part.effect.nats:+.3f}", shown, "yes" if part.effect.changes_answer else ""
