"""Answer extraction against recorded outcomes and an enumeration of replies."""

import itertools

import pytest

from c2c_lightning.evaluation.scoring.extract import (
    anchored_choice,
    choice_text,
    extract_choice,
    normalise,
    released_letter,
)

CITIES = ["Lyon", "Paris", "Nice", "Lille"]

#: Replies with what the released code (thu-nics/C2C, rosetta/utils/evaluate.py at 022800a) reads out of them.
RELEASED = [
    ("", None),
    ("The correct answer is B", "B"),
    ("the answer is: C. Because", "C"),
    ("Answer:\nD", "D"),
    ("Answer: none of A", "A"),
    ("Your answer: see below\nB", "B"),
    ("correct answer is unclear\nThe correct answer is: B", "B"),
    ("Jibu sahihi: C", "C"),
    ("I think so, b", "B"),
    ("B. Paris is the capital", "B"),
    ("a or c, maybe", "C"),
    ("x = a + b", None),
    ("the correct value is x = a + b", "B"),
    ("I DON'T KNOW", "D"),
    ("CAT", "A"),
    ("no idea", None),
]


@pytest.mark.parametrize(("reply", "letter"), RELEASED)
def test_released_rule_equals_the_released_code(reply: str, letter: str | None) -> None:
    assert released_letter(reply) == letter


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        " B.",
        "(B)",
        "**B**",
        "B) Paris",
        "B - Paris",
        "B \u2013 Paris",
        "The answer is \u201cB\u201d.",
        "B\n\nParis is the capital.",
        "The correct answer is B",
        "The correct answer is B because it is the capital.",
        'The correct answer is "B".',
        "The correct answer is: B. Paris",
        "The correct answer is option B.",
        "The correct answer is $\\boxed{B}$",
        "The answer is not obvious. The answer is B.",
        "Answer:\nB",
        "**Answer:** (B)",
        "My choice would be B",
        "I would choose B.",
        "Option B is correct.",
        "Paris",
        "paris.",
        "The correct answer is Paris.",
        "The correct answer is Paris. It is the capital.",
    ],
)
def test_anchored_extracts_explicit_answers(reply: str) -> None:
    assert anchored_choice(reply, CITIES) == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I DON'T KNOW",
        "A cat",
        "BAD",
        "The correct answer is A/B/C/D",
        "The correct answer is A and B",
        "The answer is not B.",
        "The answer is E",
        "A. Lyon\nB. Paris\nC. Nice\nD. Lille",
        "All of the above are true about France, I believe",
        "Paris and Lyon",
        "x = a + b",
    ],
)
def test_anchored_extracts_nothing_without_explicit_answer(reply: str) -> None:
    assert anchored_choice(reply, CITIES) is None


def test_anchored_prefers_the_text_of_a_choice_to_its_first_letter() -> None:
    assert anchored_choice("The answer is A cat.", ["a dog", "a cat"]) == 1


@pytest.mark.parametrize("num_choices", [2, 4, 10])
def test_anchored_letters_agree_with_an_enumeration(num_choices: int) -> None:
    choices = [f"choice number {n}" for n in range(num_choices)]
    heads = ["", "The correct answer is ", "Answer: ", "the answer is option "]
    marks = [("", ""), ("(", ")"), ("**", "**"), ("", "."), ("'", "'")]
    for head, (left, right), index in itertools.product(heads, marks, range(12)):
        expected = index if index < num_choices else None
        assert anchored_choice(f"{head}{left}{chr(65 + index)}{right}", choices) == expected


def test_choice_text_ignores_case_spaces_and_end_punctuation_only() -> None:
    assert choice_text(" north  CAROLINA. ", ["own home", "North Carolina"]) == 1
    assert choice_text("North", ["own home", "North Carolina"]) is None
    assert choice_text("-3", ["3", "-3"]) == 1
    assert choice_text("home", ["home", "Home"]) is None
    assert choice_text("", ["", "x"]) is None


def test_normalise_keeps_signs_in_front() -> None:
    assert normalise("  -$3.50. ") == "-$3.50"


def test_rules_by_name() -> None:
    reply = "I DON'T KNOW"
    assert extract_choice(reply, CITIES, "released") == 3
    assert extract_choice(reply, CITIES) is None
    assert extract_choice("lille", CITIES, "choice_text") == 3
    assert extract_choice("D", ["yes", "no"], "released") is None


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Paris", 1),
        (" Paris.\nQuestion: Which river?\nAnswer: Seine", 1),
        ("\n\nparis. It is the capital of France.", 1),
        ("St. Denis\nLyon", 2),
        ("The capital is Paris", None),
        ("", None),
    ],
)
def test_first_line_or_first_sentence(reply: str, expected: int | None) -> None:
    assert extract_choice(reply, ["Lyon", "Paris", "St. Denis"], "first_line") == expected
