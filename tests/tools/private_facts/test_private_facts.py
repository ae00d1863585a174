"""Made-up facts: what is held out, and what a row has."""

import json
import random
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tools.private_facts.__main__ import HELD_OUT, main, make_files
from tools.private_facts.rows import RowMaker, load_relations
from tools.private_facts.vocabulary import Vocabulary

FILES = make_files(400, 100, seed=3)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(3)


def test_relations_have_several_wordings_that_name_the_name_and_the_value() -> None:
    relations = load_relations()
    assert len(relations) >= 40
    assert sum(relation.held_out for relation in relations) >= 10
    for relation in relations:
        assert len(relation.statements) >= 3
        assert len(relation.questions) >= 2
        assert all("{name}" in text and "{value}" in text for text in relation.statements)
        assert all("{name}" in text and "{value}" not in text for text in relation.questions)


def test_there_are_thousands_of_names_and_values(vocabulary: Vocabulary) -> None:
    for words in (vocabulary.names, vocabulary.values):
        assert sum(len(entry.known) + len(entry.held_out) for entry in words.values()) > 2000
        assert not any(set(entry.known) & set(entry.held_out) for entry in words.values())


def test_rows_ask_one_of_two_to_four_facts_and_offer_five_choices() -> None:
    for row in chain.from_iterable(FILES.values()):
        assert row["answer"] in row["document"]
        assert 2 <= row["document"].count(".") <= 4
        assert len(set(row["choices"])) == 5
        assert row["answer"] in row["choices"]
        assert not re.search(rf"\b{row['answer']}\b", row["question"])


def test_documents_and_questions_are_distinct_over_all_files() -> None:
    keys = [(row["document"], row["question"]) for row in chain.from_iterable(FILES.values())]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_parts_are_in_no_training_row(split: str, vocabulary: Vocabulary) -> None:
    training = [row for name in ("train", "worked_examples", "validation") for row in FILES[name]]
    text, novelty = " ".join(row["document"] for row in training), HELD_OUT[split]
    kinds = {relation.name: relation for relation in load_relations()}
    for row in FILES[split]:
        relation = kinds[row["relation"]]
        assert relation.held_out == novelty.relations
        asked = vocabulary.names[relation.of].of(novelty.names)
        assert any(name in row["question"] for name in asked)
        assert (row["answer"] in vocabulary.values[relation.value].held_out) == novelty.values
        if novelty.names:
            assert not any(name in text for name in asked if name in row["question"])
        if novelty.values:
            assert row["answer"] not in {other["answer"] for other in training}


def test_a_held_out_name_shares_no_part_with_a_name_of_training(vocabulary: Vocabulary) -> None:
    person = vocabulary.names["person"]
    assert not {name.split()[0] for name in person.known} & {name.split()[0] for name in person.held_out}


def test_some_documents_state_the_asked_relation_of_another_name() -> None:
    # The question's name then decides between two values of one type.
    rows = [row for row in FILES["train"] if row["relation"] == "learns_language"]
    assert any(row["document"].count("is learning") == 2 for row in rows)
    assert any(row["document"].count("is learning") == 1 for row in rows)


def test_the_same_seed_makes_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files(folder: str, seed: int) -> dict[str, list[dict[str, Any]]]:
        main(["--out", str(tmp_path / folder), "--rows", "50", "--heldout_rows", "20", "--seed", str(seed)])
        return {
            path.name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for path in sorted((tmp_path / folder).iterdir())
        }

    first = files("a", 1)
    assert first == files("b", 1)
    assert first != files("c", 2)
    assert len(first["train.jsonl"]) == 50
    assert len(first["heldout_names_values.jsonl"]) == 20
    assert "train.jsonl: 50 rows" in capsys.readouterr().out


def test_more_rows_begin_with_the_same_rows() -> None:
    assert make_files(50, 10, seed=3)["train"] == FILES["train"][:50]


def test_a_row_maker_asks_no_question_about_types_with_few_values(vocabulary: Vocabulary) -> None:
    relations = load_relations()
    maker = RowMaker(vocabulary, relations, HELD_OUT["heldout_values"], random.Random(0))
    assert all(len(vocabulary.values[relation.value].held_out) >= 8 for relation in maker.asked)


def test_texts_have_single_spaces_and_the_right_article() -> None:
    for row in chain.from_iterable(FILES.values()):
        text = f"{row['document']} {row['question']}"
        assert "  " not in text
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]", text)
