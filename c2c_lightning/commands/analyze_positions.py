"""`lightning analyze positions`: loss of a trained fuser by the position of a token in its response."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from c2c_lightning.analysis.loss_by_position import WHO, SpanLoss, loss_by_position
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.data.preprocessing.row_encoder import training_batches
from c2c_lightning.data.sources import Source
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.load_models import load_fused
from c2c_lightning.evaluation.prediction_log import write_atomically


def analyze_positions(args: Sequence[str]) -> None:
    """Loss by position in the response: with the right cache, with another row's, and of the receiver alone."""
    parser = CommandParser(prog="lightning analyze positions", description=analyze_positions.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory, hub id or checkpoint")
    parser.add_argument("--source", type=Source, required=True, help="conversations, as in `lightning fit`")
    parser.add_argument(
        "--edges", type=list[int], default=[16, 64, 256], help="positions that divide the response, in tokens"
    )
    parser.add_argument("--max_rows", type=int, default=500, help="how many conversations to read")
    parser.add_argument("--batch_size", type=int, default=16, help="rows of a batch, at least 2")
    parser.add_argument("--output_dir", type=str, default="runs/positions", help="folder of positions.json")
    options = parser.options(args)
    if options.batch_size < 2:
        raise ConfigurationError(
            "`batch_size` must be at least 2: the mismatched cache is that of another row in the batch."
        )
    model = load_fused(options.fuser)
    batches = training_batches(options.source, model.encoder, options.max_rows, options.batch_size)
    spans = loss_by_position(model, track(batches, options.source.name, console=ERROR_CONSOLE), options.edges)
    folder = Path(options.output_dir)
    document = {"version": 1, "fuser": options.fuser, "spans": [span.to_json() for span in spans]}
    write_atomically(folder / "positions.json", json.dumps(document, indent=2) + "\n")
    Console().print(_table(spans))


def _table(spans: Sequence[SpanLoss]) -> Table:
    """Nats per token; `transferred` is mismatched minus c2c, with its interval."""
    table = Table("response tokens", title="loss in nats per token")
    for title in ("rows", "tokens", *WHO, "transferred", "95 %"):
        table.add_column(title, justify="right", no_wrap=True)
    for span in spans:
        name = f"{span.begin}-" + ("" if span.end is None else str(span.end - 1))
        losses = (f"{span.loss[who]:.3f}" for who in WHO)
        interval = " to ".join(f"{end:.3f}" for end in span.ci95)
        table.add_row(name, str(span.rows), str(span.tokens), *losses, f"{span.transferred:.3f}", interval)
    return table
