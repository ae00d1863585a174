"""`lightning analyze`: what a pair of models and a fuser do, in numbers and pictures."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console

from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.analysis.alignment import alignment_report
from c2c_lightning.data.conversation import Conversation
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.rows import ReadRow, RowEncoder
from c2c_lightning.data.sources import Source
from c2c_lightning.model.frozen import LMSpec, load_tokenizer, tokenizer_spec

ANALYSES = ("alignment",)


def run_analyze(args: Sequence[str]) -> None:
    """Pick the analysis that the second word names."""
    if list(args[1:2]) in (["-h"], ["--help"]):
        Console().print(f"usage: lightning analyze {'|'.join(ANALYSES)} --config FILE [--help]", markup=False)
        raise SystemExit(0)
    if len(args) < 2 or args[1] not in ANALYSES:
        raise ArgumentError(None, f"say what to analyze: lightning analyze {'|'.join(ANALYSES)} --config FILE")
    analyze_alignment(args[2:])


def analyze_alignment(args: Sequence[str]) -> None:
    """Coverage of a token alignment over a data set, and a picture of one conversation."""
    parser = ArgumentParser(
        prog="lightning analyze alignment", description=analyze_alignment.__doc__, exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--receiver", type=LMSpec, required=True, help="the receiver; only its tokenizer is loaded")
    parser.add_argument("--sharers", type=list[LMSpec], required=True, help="the sharers; likewise")
    parser.add_argument("--token_alignment", type=TokenAlignment, default="auto", help="the strategy to measure")
    parser.add_argument("--source", type=Source, required=True, help="conversations, as in `lightning fit`")
    parser.add_argument("--max_rows", type=int, default=2000, help="how many conversations to measure")
    parser.add_argument("--output_dir", type=str, default="runs/alignment", help="alignment.json and alignment.html")
    options = parser.instantiate_classes(parser.parse_args(list(args)))
    readings = [tokenizer_spec(spec, load_tokenizer(spec)) for spec in (options.receiver, *options.sharers)]
    encoder = Encoder(readings[0], readings[1:], options.token_alignment)
    pairs = list(islice(prompts_of(options.source, encoder), options.max_rows))
    report = alignment_report(encoder, [own for own, _ in pairs], [theirs for _, theirs in pairs])
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    report.save(folder / "alignment.json")
    report.to_html(folder / "alignment.html")
    Console().print(report.to_text(), markup=False, highlight=False)


def prompts_of(source: Source, encoder: Encoder) -> Iterator[tuple[Conversation, Conversation | None]]:
    """The prompts of a source's rows, without their responses; rows that cannot be read are left out."""
    reader = RowEncoder(source, encoder)
    for number, row in enumerate(source.load()):
        read = reader.read(row, number)
        if isinstance(read, ReadRow):
            yield read.messages[:-1], read.own
