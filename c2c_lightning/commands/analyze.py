"""`lightning analyze`: analyses of a pair of models and their data, as JSON, tables and pictures."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.analysis.alignment_report import alignment_report
from c2c_lightning.analysis.padding_report import padding_report
from c2c_lightning.commands.analyze_fuser import analyze_gates, analyze_rank
from c2c_lightning.commands.analyze_layers import analyze_layers
from c2c_lightning.commands.analyze_length import analyze_length
from c2c_lightning.commands.analyze_overlap import analyze_overlap
from c2c_lightning.commands.analyze_positions import analyze_positions
from c2c_lightning.commands.analyze_proportion import analyze_proportion
from c2c_lightning.commands.analyze_scaling import analyze_scaling
from c2c_lightning.commands.analyze_tokens import analyze_tokens
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.commands.subcommands import SubcommandTable
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.preprocessing.prepare import Settings, prepare
from c2c_lightning.data.preprocessing.row_encoder import prompts_of
from c2c_lightning.data.preprocessing.tokenized_dataset import cache_folder
from c2c_lightning.data.row_lengths import BatchLimits
from c2c_lightning.data.sources import Source
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.load_lm import load_tokenizer

EXAMPLES = """\
Examples, from the third on after `lightning fit` and `lightning test` with `--config quickstart`:
  lightning analyze alignment --config quickstart_alignment
  lightning analyze padding --config quickstart_alignment
  lightning analyze overlap --config quickstart_overlap
  lightning analyze rank --config quickstart_fuser
  lightning analyze gates --config quickstart_fuser
  lightning analyze layers --config quickstart_fuser
  lightning analyze tokens --config quickstart_fuser --question "What is the capital of Nepi?"
  lightning analyze positions --config quickstart_positions
  lightning analyze proportion --config quickstart_proportion
  lightning analyze length --config quickstart_length
  lightning analyze scaling --config quickstart_scaling
Options of one analysis: `lightning analyze alignment --help`."""


def run_analyze(args: Sequence[str]) -> None:
    """Run the analysis named by the second word."""
    SubcommandTable("analyze", "an analysis", ANALYSES, EXAMPLES).run(args)


def analyze_alignment(args: Sequence[str]) -> None:
    """Coverage of a token alignment over a data set, and a picture of one conversation."""
    parser = _parser("alignment", analyze_alignment.__doc__)
    parser.add_argument("--max_rows", type=int, default=2000, help="how many conversations to measure")
    options = parser.options(args)
    encoder = _encoder(options)
    pairs = list(islice(prompts_of(options.source, encoder), options.max_rows))
    report = alignment_report(encoder, [own for own, _ in pairs], [theirs for _, theirs in pairs])
    folder = _folder(options)
    report.save(folder / "alignment.json")
    report.to_html(folder / "alignment.html")
    Console().print(report.to_text(), markup=False, highlight=False)


def analyze_padding(args: Sequence[str]) -> None:
    """How much of the tokens in batches is padding: in random order, as released, and by length."""
    parser = _parser("padding", analyze_padding.__doc__)
    parser.add_argument("--max_rows", type=int, help="read only the first rows")
    parser.add_argument(
        "--max_length", type=int, default=2048, help="tokens of the longer model; longer rows are left out"
    )
    parser.add_argument("--batch_size", type=int, default=4, help="rows of a batch")
    parser.add_argument("--max_tokens_per_batch", type=int, help="measure batches of so many tokens too")
    options = parser.options(args)
    settings = Settings(
        _encoder(options),
        cache_folder(),
        BatchLimits(options.batch_size),
        max_length=options.max_length,
        max_rows=options.max_rows,
        max_bad_share=1.0,
    )
    prepared = prepare([options.source], "train", settings)
    lengths = prepared.table.lengths.take(prepared.rows)
    report = padding_report(lengths, options.batch_size, options.max_tokens_per_batch)
    report.save(_folder(options) / "padding.json")
    Console().print(report.to_text(), markup=False, highlight=False)


ANALYSES = {
    "alignment": analyze_alignment,
    "padding": analyze_padding,
    "overlap": analyze_overlap,
    "rank": analyze_rank,
    "gates": analyze_gates,
    "layers": analyze_layers,
    "tokens": analyze_tokens,
    "proportion": analyze_proportion,
    "scaling": analyze_scaling,
    "length": analyze_length,
    "positions": analyze_positions,
}


def _parser(name: str, about: str | None) -> CommandParser:
    """The options of all analyses of tokenizers and data."""
    parser = CommandParser(prog=f"lightning analyze {name}", description=about)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--receiver", type=LMSpec, required=True, help="the receiver; only its tokenizer is loaded")
    parser.add_argument("--sharers", type=list[LMSpec], required=True, help="the sharers; likewise")
    parser.add_argument("--token_alignment", type=TokenAlignment, default="auto", help="how the tokens are aligned")
    parser.add_argument("--source", type=Source, required=True, help="conversations, as in `lightning fit`")
    parser.add_argument("--output_dir", type=str, default=f"runs/{name}", help="where the numbers go")
    return parser


def _encoder(options: Namespace) -> Encoder:
    if not options.sharers:
        raise ConfigurationError("`sharers` is empty: name at least one model whose tokens are read.")
    readings = [tokenizer_spec(spec, load_tokenizer(spec)) for spec in (options.receiver, *options.sharers)]
    return Encoder(readings[0], readings[1:], options.token_alignment)


def _folder(options: Namespace) -> Path:
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
