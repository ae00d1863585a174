"""Options, rows and output files of the analyses of a trained fuser."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.progress import track

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.data.preprocessing.row_encoder import Prompt, prompts_of
from c2c_lightning.data.sources import Source
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError, MissingExtraError
from c2c_lightning.evaluation.prediction_log import write_atomically
from c2c_lightning.model.c2c import C2CModel

logger = logging.getLogger(__name__)


def fuser_parser(name: str, about: str | None, max_rows: int = 1000) -> CommandParser:
    """The options of all analyses that run a fuser on conversations."""
    parser = CommandParser(prog=f"lightning analyze {name}", description=about)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory, hub id or checkpoint")
    parser.add_argument("--sources", type=list[Source], required=True, help="conversations, as in `lightning fit`")
    parser.add_argument("--sharer", type=int, default=0, help="number of the sharer that is shown")
    parser.add_argument("--max_rows", type=int, default=max_rows, help="how many conversations of a source to read")
    parser.add_argument("--batch_size", type=int, default=16, help="prompts of a batch")
    parser.add_argument("--output_dir", type=str, default=f"runs/{name}", help="where numbers and picture go")
    return parser


def only_source(options: Namespace) -> Source:
    """The one source of an analysis that takes no more.

    Raises:
        ConfigurationError: none, or several.
    """
    if len(options.sources) != 1:
        raise ConfigurationError(f"`sources` has {len(options.sources)} sources, but this analysis is of one.")
    source: Source = options.sources[0]
    return source


def check_sharer(model: C2CModel, sharer: int) -> None:
    """ConfigurationError for the number of a sharer that the fuser does not have."""
    if not 0 <= sharer < len(model.sharers):
        raise ConfigurationError(f"there is no sharer {sharer}: the fuser has {len(model.sharers)}.")


def prompt_batches(model: C2CModel, source: Source, options: Namespace) -> Iterator[PromptBatch]:
    """The prompts of a source in batches, with a progress bar."""
    check_sharer(model, options.sharer)
    yield from encoded(model, list(islice(prompts_of(source, model.encoder), options.max_rows)), source.name, options)


def encoded(model: C2CModel, prompts: Sequence[Prompt], name: str, options: Namespace) -> Iterator[PromptBatch]:
    """Prompts in batches, with a progress bar."""
    batches = [prompts[n : n + options.batch_size] for n in range(0, len(prompts), max(1, options.batch_size))]
    for batch in track(batches, name, console=ERROR_CONSOLE, transient=True):
        yield model.encode([own for own, _ in batch], [theirs for _, theirs in batch])


def digest_of(batches: Sequence[TrainingBatch]) -> str:
    """A hash of all tokens of some batches, so that a resumed measurement never mixes two data sets."""
    digest = hashlib.sha256()
    for batch in batches:
        ids = [batch.prompt.receiver.input_ids, *(s.input_ids for s in batch.prompt.sharers), batch.response_ids]
        for tensor in ids:
            digest.update(repr(tensor.tolist()).encode())
    return digest.hexdigest()


def write_analysis(folder: Path, name: str, document: dict[str, Any], figure: Callable[[], Any]) -> None:
    """The numbers as JSON, and the picture where matplotlib is installed."""
    write_atomically(folder / f"{name}.json", json.dumps(document, indent=2) + "\n")
    try:
        figure().savefig(folder / f"{name}.png", dpi=120)
    except MissingExtraError as error:
        logger.info("no picture: %s", error)
