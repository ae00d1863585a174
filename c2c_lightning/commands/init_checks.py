"""Checks of `lightning init` on models and rows, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.analysis.alignment_report import SharerAlignment, alignment_report
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.preprocessing.row_encoder import BAD_KINDS, ParsedRow, Rejected, RowEncoder
from c2c_lightning.data.sources.detect import SourceChoice, detect_source
from c2c_lightning.errors import AlignmentError, ConfigurationError, DataError
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.load_lm import load_tokenizer
from c2c_lightning.model.meta_geometry import expected_geometry

CHECKED_ROWS = 1000
"""Rows that are parsed and aligned."""
MOST_BAD = 0.01
"""Share of unreadable rows at which `lightning fit` refuses the data (`data.max_bad_share`)."""


@dataclass(frozen=True)
class Rows:
    """The first rows of the training data.

    Attributes:
        source: their source.
        count: all rows, None for a stream.
        parsed: the readable ones of those that were checked.
        rejected: the others.
    """

    source: SourceChoice
    count: int | None
    parsed: list[ParsedRow] = field(repr=False)
    rejected: list[Rejected] = field(repr=False)


def model_spec(path: str) -> LMSpec:
    """A language model that can be loaded, as far as its tokenizer shows; base models get a plain-text template.

    Raises:
        C2CError: it has no tokenizer, or its cache cannot be fused.
    """
    if not path:
        raise ConfigurationError("The name of the model is empty. Name a directory or a hub id.")
    spec = LMSpec(path)
    tokenizer = load_tokenizer(spec)
    expected_geometry(spec)  # refuses models whose cache cannot be fused
    return spec if tokenizer.chat_template else replace(spec, prompt_template="question_answer")


def check_rows(path: str, encoder: Encoder) -> Rows:
    """Read the first rows.

    Raises:
        DataError: there are none, or more of them are unreadable than a run accepts.
    """
    if not path:
        raise DataError("The name of the data is empty. Name a file, a folder or a hub data set.")
    choice = detect_source(path)
    source = choice.build()
    table = source.load()
    reader = RowEncoder(source, encoder)
    checked = [reader.parse(row, number) for number, row in enumerate(islice(iter(table), CHECKED_ROWS))]
    parsed = [row for row in checked if isinstance(row, ParsedRow)]
    rejected = [row for row in checked if isinstance(row, Rejected) and row.kind in BAD_KINDS]
    if len(rejected) > MOST_BAD * len(checked) or not parsed:
        first = "\n".join(f"  {row.origin}: {row.why}" for row in rejected[:3])
        raise DataError(f"{len(rejected)} of the first {len(checked)} rows of `{path}` cannot be used:\n{first}")
    return Rows(choice, len(table) if hasattr(table, "__len__") else None, parsed, rejected)


def encoder_of(receiver: LMSpec, sharers: Sequence[LMSpec]) -> tuple[Encoder, TokenAlignment]:
    """The encoder of a pair, and its token alignment: `auto` where all tokenizers agree, else `span`."""
    specs = [tokenizer_spec(spec, load_tokenizer(spec)) for spec in (receiver, *sharers)]
    encoder = Encoder(specs[0], specs[1:], "auto")
    if set(encoder.strategies) == {"identity"}:
        return encoder, "auto"
    # Sharers keep their own tokens then: no text is damaged by re-tokenising it.
    return Encoder(specs[0], specs[1:], "span"), "span"


def aligned(encoder: Encoder, rows: Rows) -> tuple[SharerAlignment, ...]:
    """The alignment of each sharer on the rows.

    Raises:
        AlignmentError: no token of a sharer is aligned.
    """
    prompts = [row.messages[:-1] for row in rows.parsed]
    sharers = alignment_report(encoder, prompts, [row.sharer_messages for row in rows.parsed]).sharers
    for number, sharer in enumerate(sharers):
        if not sharer.counts.fused_tokens:
            raise AlignmentError(
                f"No token of the receiver is aligned with one of sharer {number + 1} in {len(prompts)} rows: nothing "
                "would be fused. With private context, both models must read the same question at the end."
            )
    return sharers


def alignment_text(sharer: SharerAlignment) -> str:
    """Which tokens are aligned, in words."""
    counts = sharer.counts
    return (
        f"token alignment `{sharer.strategy}`: {counts.coverage:.1%} of the receiver's message tokens are mapped "
        f"({counts.fused_message_tokens:,} of {counts.message_tokens:,} in {counts.conversations:,} rows)"
    )


def kv_width(receiver: LMSpec) -> int:
    """Elements of one token's keys or values, whichever are fewer, in the receiver's narrowest layer.

    Where they are not known, those of the paper's receiver.
    """
    geometry = expected_geometry(receiver)
    if geometry is None:
        return 1024
    return min(layer.kv_heads * min(layer.key_dim, layer.value_dim) for layer in geometry.layers)
