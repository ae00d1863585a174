"""The paper's prompts, letter for letter, and templates."""

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks.prompts import WORDINGS, Wording, wording_of
from c2c_lightning.responders.prompt_texts import TEXT_3, fill

TEXT_1_RENDERED = (
    "Accurately answer the following question:\n\nWhich is red?\n\nChoices:\nA. sky\nB. blood\nC. grass\nD. coal\n\n\n"
    "Instructions:\n- Carefully read the question and all options.\n- Select the single most correct answer.\n"
    '- Respond ONLY in the following format: "The correct answer is A/B/C/D".\n'
    "- Do not include any explanations, additional text, or punctuation besides the answer.\n\nThe correct answer is"
)
CHOICES = ["sky", "blood", "grass", "coal"]


def test_text_1_is_the_papers() -> None:
    assert wording_of("paper").render("Which is red?", CHOICES) == TEXT_1_RENDERED


def test_text_2_asks_for_reasoning() -> None:
    prompt = wording_of("paper_cot").render("Which is red?", CHOICES)
    assert prompt.startswith(TEXT_1_RENDERED.split("- Select")[0])
    assert prompt.endswith(
        "- Let's think step by step and explain your reasoning briefly.\n"
        "- Then give the final answer starting with The correct answer is"
    )


def test_text_3_asks_for_background_only() -> None:
    assert fill(TEXT_3, question="Why?") == (
        "In one clear sentence, describe the most essential background knowledge needed to answer the question: Why? "
        "Do NOT directly solve or give answer to the question."
    )


def test_letters_follow_the_number_of_choices() -> None:
    assert '"The correct answer is A/B"' in wording_of("paper").render("?", ["yes", "no"])


def test_braces_in_a_question_stay() -> None:
    assert wording_of("question").render("What is {choices} in $x_{1}$?") == "What is {choices} in $x_{1}$?"


def test_unknown_placeholders_and_names_are_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"\{qestion\}"):
        Wording("{qestion}")
    with pytest.raises(BenchmarkError, match="unknown wording 'papper'"):
        wording_of("papper")


def test_a_template_is_a_wording() -> None:
    wording = wording_of("Question: {question}\nAnswer:")
    assert wording.render("Why?") == "Question: Why?\nAnswer:"
    assert not wording.shows_choices
    assert WORDINGS["paper"].shows_choices
