"""Rows about real texts: the document holds the sentence, and the receiver cannot know how it goes on."""

import json
import random
from pathlib import Path
from typing import Any

from tests.tools.private_facts.test_private_facts import FILES, OPEN
from tools.private_facts.__main__ import SENTENCES, main, make_files
from tools.private_facts.sentences import RELATION, sentence_rows

RIVERS = [f"{a}{b}{c}" for a in ("Bel", "Cas", "Dro", "Fen") for b in ("mor", "tan") for c in ("ham", "by", "ton")]
TEXTS = [
    f"The {river} is a river of the north. It rises near the village of {river}ville and flows through {number} lakes. "
    f"In 18{number} a bridge over the {river} was built. Ships of all kinds have used the {river} ever since."
    for number, river in enumerate(RIVERS, 10)
]


def test_a_row_asks_for_the_rest_of_a_sentence_of_its_document() -> None:
    rows = list(sentence_rows(TEXTS, random.Random(0)))
    assert len(rows) == len(TEXTS)
    for row in rows:
        beginning = row["question"].partition(": ")[2] or row["question"].split('"')[1]
        assert f"{beginning} {row['answer']}." in row["document"]
        assert 1 <= len(row["answer"].split()) <= 30
        assert not row["answer"].endswith(".")
    assert len({len(row["answer"].split()) for row in rows}) > 3


def test_documents_are_whole_sentences_of_at_most_ninety_words() -> None:
    long = " ".join(TEXTS)
    (row,) = sentence_rows([long], random.Random(0))
    assert len(row["document"].split()) <= 90
    assert row["document"].endswith(".")
    assert row["document"] in long


def test_texts_without_a_sentence_of_fitting_length_have_no_row() -> None:
    endless = "and so on " * 40
    assert not list(
        sentence_rows(["Too short.", "no full stop", f"{endless}.", "Wait for it now and then ..."], random.Random(0))
    )


def test_texts_are_a_third_of_the_training_rows_and_held_out_ones_are_apart() -> None:
    files = make_files(40, 20, seed=3, open_values=OPEN, texts=TEXTS)
    asked = [row for row in files["train"] if row["relation"] == RELATION]
    assert len(files["train"]) == 40
    assert len(asked) == 14
    assert [row["id"] for row in files["train"]] == [f"train/{number}" for number in range(40)]
    assert len(files[SENTENCES]) == 4
    trained, held_out = _rivers(asked), _rivers(files[SENTENCES])
    assert len(trained) == 14
    assert not trained & held_out


def test_other_files_do_not_depend_on_texts() -> None:
    files = make_files(400, 100, seed=3, open_values=OPEN, texts=TEXTS)
    same = {"worked_examples", "validation", "heldout_names", "heldout_relations"}
    assert all(files[name] == FILES[name] for name in same)


def test_the_command_reads_texts(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    main(["--out", str(tmp_path / "facts"), "--rows", "30", "--heldout_rows", "5", "--texts", str(file)])
    rows = [json.loads(line) for line in (tmp_path / "facts" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(row["relation"] == RELATION for row in rows) == 10


def _rivers(rows: list[dict[str, Any]]) -> set[str]:
    return {river for river in RIVERS for row in rows if river in row["document"]}
