"""Made-up facts: what is held out, and what a row has."""

import json
import random
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.pre_tokenizers import Metaspace
from transformers import PreTrainedTokenizerFast

from tools.private_facts.__main__ import HELD_OUT, main, make_files
from tools.private_facts.phrases import PHRASE_TYPES
from tools.private_facts.rows import Relation, RowMaker, Selection, load_relations
from tools.private_facts.token_words import OPEN_TYPES, token_words
from tools.private_facts.vocabulary import Vocabulary

ENDINGS = ("dor", "sel", "tan", "wick", "lom", "rup", "nif", "gan", "bry", "mott", "zal", "ket")
OPEN = {
    "word": [f"{a}{b}" for a in ("lan", "mor", "vel", "tin", "gar") for b in ENDINGS],
    "title": [f"{a}{b}" for a in ("Bel", "Cas", "Dro", "Fen", "Hul") for b in ENDINGS],
    "word_in_pieces": [f"{a}{b}{c}" for a in ("pra", "sko", "tru") for b in "bdfgklmnr" for c in ("isk", "ond", "uma")],
    "title_in_pieces": [
        f"{a}{b}{c}" for a in ("Pra", "Sko", "Tru") for b in "bdfgklmnr" for c in ("isk", "ond", "uma")
    ],
}
PIECES = {*OPEN["word_in_pieces"], *OPEN["title_in_pieces"]}
FILES = make_files(400, 100, seed=3, open_values=OPEN)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(3, OPEN)


def test_relations_have_several_wordings_that_name_the_name_and_the_value(vocabulary: Vocabulary) -> None:
    relations = load_relations(vocabulary)
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
        assert not re.search(rf"\b{re.escape(row['answer'])}\b", row["question"])


def test_choices_are_distinct_where_numbers_are_drawn_twice(vocabulary: Vocabulary) -> None:
    selection = Selection(phrase_share=1.0)
    maker = RowMaker(vocabulary, selection, random.Random(0))
    maker.phrases = [relation for relation in maker.phrases if relation.value == "figure"]
    assert all(len(set(maker.row()["choices"])) == 5 for _ in range(2000))


def test_documents_and_questions_are_distinct_over_all_files() -> None:
    keys = [(row["document"], row["question"]) for row in chain.from_iterable(FILES.values())]
    assert len(set(keys)) == len(keys)


def words_of(row: dict[str, Any], relation: Relation) -> list[str]:
    return row["answer"].split() if relation.value == "list" else [row["answer"]]


@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_parts_are_in_no_training_row(split: str, vocabulary: Vocabulary) -> None:
    training = [row for name in ("train", "worked_examples", "validation") for row in FILES[name]]
    text, selection = " ".join(row["document"] for row in training), HELD_OUT[split]
    kinds = {relation.name: relation for relation in load_relations(vocabulary)}

    def held_out_words(relation: Relation) -> set[str]:
        types = OPEN_TYPES if relation.value == "list" else (relation.value,)
        types = [*types, *(f"{kind}_in_pieces" for kind in types if kind in OPEN_TYPES)]
        return {word for kind in types for word in vocabulary.values[kind].held_out}

    for row in FILES[split]:
        relation = kinds[row["relation"]]
        assert relation.held_out == selection.new_relations
        asked = vocabulary.names[relation.of].of(selection.new_names)
        assert any(name in row["question"] for name in asked)
        if relation.value not in PHRASE_TYPES:
            assert all((word in held_out_words(relation)) == selection.new_values for word in words_of(row, relation))
        if selection.new_names:
            assert not any(name in text for name in asked if name in row["question"])
        if selection.new_values:
            assert row["answer"] not in {other["answer"] for other in training}


def test_a_held_out_name_shares_no_part_with_a_name_of_training(vocabulary: Vocabulary) -> None:
    person = vocabulary.names["person"]
    assert not {name.split()[0] for name in person.known} & {name.split()[0] for name in person.held_out}


def test_one_file_states_the_asked_relation_of_two_names_and_the_others_of_one(vocabulary: Vocabulary) -> None:
    # In that file, the question's name decides between two values of one type.
    values = {relation.name: relation.value for relation in load_relations(vocabulary)}

    def answers_of_that_type(row: dict[str, Any]) -> int:
        words = vocabulary.values[values[row["relation"]]]
        text = re.split(r"[ .]", row["document"])
        return sum(word in text for word in {*words.known, *words.held_out})

    rows = [row for row in FILES["same_relation"] if row["relation"] in ("learns_language", "code_word")]
    assert rows
    assert all(answers_of_that_type(row) >= 2 for row in rows)
    for row in FILES["train"]:
        if row["relation"] == "learns_language":
            assert row["document"].count("is learning") == 1


def test_half_of_the_training_asks_for_lists_and_the_rest_for_phrases_open_values_and_others(
    vocabulary: Vocabulary,
) -> None:
    values = {relation.name: relation.value for relation in load_relations(vocabulary)}
    counts = Counter(values[row["relation"]] for row in FILES["train"])
    assert 0.4 < counts["list"] / 400 < 0.6
    phrases = sum(counts[kind] for kind in PHRASE_TYPES)
    assert 0.2 < phrases / (400 - counts["list"]) < 0.4
    assert 0.4 < (counts["word"] + counts["title"]) / (400 - counts["list"] - phrases) < 0.6
    assert {values[row["relation"]] for row in FILES["heldout_lists"]} == {"list"}
    assert "list" not in {values[row["relation"]] for row in FILES["heldout_names_values"]}
    lengths = {len(row["answer"].split()) for row in FILES["heldout_lists"]}
    assert lengths == set(range(16, 25))


def test_words_in_pieces_are_three_tenths_of_the_open_values_of_training_and_all_of_one_file() -> None:
    opened = {*chain.from_iterable(OPEN.values())}
    answers = [row["answer"].split() for row in FILES["train"]]
    for words in (
        chain.from_iterable(a for a in answers if len(a) > 1),
        chain.from_iterable(a for a in answers if len(a) == 1),
    ):
        drawn = [word for word in words if word in opened]
        assert 0.2 < sum(word in PIECES for word in drawn) / len(drawn) < 0.4
    assert all(row["answer"] in PIECES for row in FILES["heldout_pieces"])
    others = [row for name in HELD_OUT if name != "heldout_pieces" for row in FILES[name]]
    assert not any(PIECES & set(row["answer"].split()) for row in others)


FORMS = {
    "figure": r"\d{1,3}(,?\d{3})*|\d+",
    "amount": r"\$?\d[\d,]*( euros| dollars| percent)?",
    "code": r"[A-Z]{1,3}[- ]?\d{1,4}",
    "year": r"(16|17|18|19|20)\d\d",
    "date": r"(\d+ )?[A-Z][a-z]+( \d+)?(, \d{4})?|\d+ [A-Z][a-z]+( \d{4})?",
    "clock_time": r"\d+(:\d\d)?( [ap]m)?",
    "thing": r"\S+( \S+)+",
    "place": r"\S+( \S+)+",
    "full_name": r"[A-Z][a-z]+ [A-Z][a-z]+",
}


def test_phrases_are_numbers_dates_names_and_short_phrases_of_new_words(vocabulary: Vocabulary) -> None:
    values = {relation.name: relation.value for relation in load_relations(vocabulary)}
    rows = FILES["heldout_phrases"]
    assert {values[row["relation"]] for row in rows} >= {*PHRASE_TYPES} - {"amount", "clock_time"}
    known = {*vocabulary.values["word"].known, *vocabulary.values["title"].known, *vocabulary.names["person"].known}
    for row in [*rows, *FILES["train"]]:
        if (kind := values[row["relation"]]) in PHRASE_TYPES:
            assert re.fullmatch(FORMS[kind], row["answer"]), row["answer"]
            assert not re.search(r"\ba [aeio]", row["answer"])
    for row in rows:
        assert not known & {row["answer"], *row["answer"].split()}
    # The words of lists are such values too.
    assert any(re.search(r"\d", row["answer"]) for row in FILES["train"] if values[row["relation"]] == "list")
    assert not any(
        re.search(r"\d", row["answer"]) for name in HELD_OUT for row in FILES[name] if name != "heldout_phrases"
    )


def test_no_number_or_date_of_a_training_answer_is_a_held_out_answer() -> None:
    # With so many rows, most numbers of one digit are the answer of a training row.
    files = make_files(1500, 150, seed=3, open_values=OPEN)
    training = {row["answer"] for name in ("train", "worked_examples", "validation") for row in files[name]}
    assert len({*"123456789"} & training) > 5
    assert not training & {row["answer"] for row in files["heldout_phrases"]}


def test_without_an_open_vocabulary_no_row_asks_for_phrases() -> None:
    files = make_files(50, 20, seed=3)
    kinds = {relation.name: relation.value for relation in load_relations(Vocabulary.load(3, OPEN))}
    asked = {kinds[row["relation"]] for rows in files.values() for row in rows}
    assert not asked & {*PHRASE_TYPES, "list"}


def test_without_words_in_pieces_their_file_is_left_out() -> None:
    whole = {kind: OPEN[kind] for kind in OPEN_TYPES}
    files = make_files(400, 20, seed=3, open_values=whole)
    assert FILES.keys() - files.keys() == {"heldout_pieces"}
    assert any(row["answer"] in {*chain.from_iterable(whole.values())} for row in files["train"])


def test_without_an_open_vocabulary_no_question_asks_for_it() -> None:
    assert {relation.value for relation in load_relations(Vocabulary.load(3))}.isdisjoint({"list", *OPEN_TYPES})
    assert len(make_files(20, 10, seed=3)["train"]) == 20


def test_open_values_are_words_that_all_tokenizers_write_as_one_token(tmp_path: Path) -> None:
    def save(name: str, words: list[str]) -> Path:
        vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
        backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(tmp_path / name)
        return tmp_path / name

    one = save(
        "byte_level",
        ["\u0120lantern", "\u0120Lantern", "\u0120stru", "\u0120Oslo", "river", "\u0120cat", "\u0120window"],
    )
    other = save("pieces", ["\u2581lantern", "\u2581stru", "\u2581Oslo", "\u2581river", "\u2581cat", "\u2581Window"])
    # Left out: a fragment (no capitalised form), words of one tokenizer only, a word that is too short.
    found = token_words([one, other])
    assert (found["word"], found["title"]) == (["lantern"], ["Oslo"])


def test_words_in_pieces_are_one_token_of_some_tokenizer_and_at_most_three_of_the_others(tmp_path: Path) -> None:
    def save(name: str, words: list[str]) -> Path:
        vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
        backend = Tokenizer(WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix=""))
        backend.pre_tokenizer = Metaspace()
        PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(tmp_path / name)
        return tmp_path / name

    pieces = ["\u2581can", "d", "le", "\u2581v", "o", "w", "e", "l", "\u2581Candle", "\u2581river"]
    whole = ["\u2581candle", "\u2581Candle", "\u2581river", "\u2581vowel", "\u2581Vowel", "\u2581Zebra"]
    found = token_words([save("one", pieces), save("other", whole)])
    assert found["word_in_pieces"] == ["candle"]  # `vowel` has five pieces
    assert found["title"] == ["Candle"]
    assert found["word"] == []  # `river` has no capitalised form


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
    assert make_files(50, 10, seed=3, open_values=OPEN)["train"] == FILES["train"][:50]


def test_a_row_maker_asks_no_question_about_types_with_few_values(vocabulary: Vocabulary) -> None:
    maker = RowMaker(vocabulary, HELD_OUT["heldout_values"], random.Random(0))
    assert maker.closed
    assert all(len(vocabulary.values[relation.value].held_out) >= 8 for relation in maker.closed)


def test_texts_have_single_spaces_and_the_right_article() -> None:
    for row in chain.from_iterable(FILES.values()):
        text = f"{row['document']} {row['question']}"
        assert "  " not in text
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]", text)
