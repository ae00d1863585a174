"""Writes the rows of `docs/private_documents.md`: `python -m tools.private_facts --out DIR --rows 12000 --seed 1`."""

import argparse
import json
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.private_facts.rows import RowMaker, Selection
from tools.private_facts.token_words import OPEN_TYPES, token_words
from tools.private_facts.vocabulary import Vocabulary

#: Files with training names, values and relations. Lists of words have a loss at each word: many examples in one row.
TRAINING = {
    "worked_examples": Selection(list_share=0.15),
    "train": Selection(list_share=0.5, phrase_share=0.3, piece_share=0.3),
    "validation": Selection(list_share=0.5, phrase_share=0.3, piece_share=0.3),
}
#: Files that hold out one part or several. In `same_relation` the document states the asked relation of two names.
HELD_OUT = {
    "heldout_names": Selection(new_names=True),
    "heldout_values": Selection(new_values=True),
    "heldout_names_values": Selection(new_names=True, new_values=True),
    "heldout_relations": Selection(new_relations=True),
    "heldout_names_values_relations": Selection(new_names=True, new_values=True, new_relations=True),
    "heldout_lists": Selection(new_names=True, new_values=True, list_share=1.0),
    "heldout_pieces": Selection(new_names=True, new_values=True, open_share=1.0, piece_share=1.0),
    "same_relation": Selection(new_names=True, same_relation=True),
    "heldout_phrases": Selection(new_names=True, new_values=True, new_relations=True, phrase_share=1.0),
}


def make_files(
    num_rows: int, num_held_out: int, seed: int, open_values: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file; no document with its question occurs twice.

    Args:
        num_rows: training rows.
        num_held_out: rows of the validation and of each held-out file.
        seed: the same seed makes the same rows.
        open_values: an open vocabulary by type, see `token_words`, which most questions then ask for. Without words in
            pieces the file that asks for them alone is left out.
    """
    vocabulary = Vocabulary.load(seed, open_values)
    sizes = {"worked_examples": 16, "train": num_rows, "validation": num_held_out}
    seen: set[tuple[str, str]] = set()
    files: dict[str, list[dict[str, Any]]] = {}
    for name, selection in {**TRAINING, **HELD_OUT}.items():
        if selection.piece_share == 1 and not any(map(vocabulary.in_pieces, OPEN_TYPES)):
            continue
        # Each file has a generator of its own, so that its rows do not depend on the sizes of the others.
        maker = RowMaker(vocabulary, selection, random.Random(f"{seed} {name}"))
        # Numbers and dates are drawn for each row, so that one of a training row may be drawn again.
        known = {row["answer"] for split in TRAINING for row in files[split]} if selection.new_values else set()
        files[name] = _distinct_rows(maker, sizes.get(name, num_held_out), name, seen, known)
    return files


def _distinct_rows(
    maker: RowMaker, count: int, split: str, seen: set[tuple[str, str]], known: Container[str]
) -> list[dict[str, Any]]:
    """Rows that were not seen and whose answers are not known."""
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        row = maker.row()
        key = row["document"], row["question"]
        if key not in seen and row["answer"] not in known:
            seen.add(key)
            rows.append({"id": f"{split}/{len(rows)}", "split": split, **row})
    return rows


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines; the file appears when it is complete."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.private_facts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--rows", type=_positive, default=12000, help="training rows (default 12000)")
    parser.add_argument("--heldout_rows", type=_positive, default=1000, help="rows of each other file (default 1000)")
    parser.add_argument(
        "--words_of",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folders of the pair's models: most questions then ask for words that all their tokenizers write as one "
        "token, or some of them in pieces. Without them a training learns the few values by heart",
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same files (default 1)")
    options = parser.parse_args(arguments)
    open_values = token_words(options.words_of) if options.words_of else None
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in make_files(options.rows, options.heldout_rows, options.seed, open_values).items():
        write(options.out / f"{name}.jsonl", rows)
        print(f"{options.out / name}.jsonl: {len(rows)} rows")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
