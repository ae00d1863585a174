"""Prompts with shots: Text 4 of the paper, and its token ids part by part."""

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.oracle.shot_prompt import TEMPLATES, TEXT_4, PromptEncoder, ShotTemplate
from c2c_lightning.evaluation.tasks import Question
from tests.tiny import tiny_tokenizer

RED = Question(0, "0", "Red?", ("sky", "blood"), 1, subject="warm_colours")
BLUE = Question(1, "1", "Blue?", ("sky", "blood"), 0, subject="warm_colours")
HEADER = "The following are single choice questions (with answers) about warm colours.\n\n"
TEXT = (
    f"{HEADER}Question: Blue?\nOptions:\nA. sky\nB. blood\nAnswer: A\n\n"
    "Question: Red?\nOptions:\nA. sky\nB. blood\nAnswer:"
)


def encoder(template: ShotTemplate = TEXT_4, scoring: str = "letter", doubles_cue: bool = False) -> PromptEncoder:
    return PromptEncoder(tiny_tokenizer(), template, scoring, doubles_cue)  # type: ignore[arg-type]


def test_text_4_has_shots_and_ends_open() -> None:
    assert encoder().text(RED, [BLUE]) == TEXT
    assert encoder().text(RED, []) == HEADER + TEXT[TEXT.index("Question: Red?") :]


def test_the_parts_together_are_the_text() -> None:
    made = encoder()
    parts = made.encode(RED, made.context(RED, [BLUE]))
    decode = made.tokenizer.decode
    assert decode([*parts.header, *parts.shots, *parts.question, *parts.cue]) == TEXT
    assert [decode(option) for option in parts.options] == [" A", " B"]
    assert decode(parts.cue) == "Answer:"


def test_options_that_are_texts_are_not_listed() -> None:
    made = encoder(TEMPLATES["choice"], "choice")
    assert made.text(RED, [BLUE]) == f"{HEADER}Question: Blue?\nAnswer: sky\n\nQuestion: Red?\nAnswer:"
    assert [made.tokenizer.decode(option) for option in made.encode(RED, ((), ())).options] == [" sky", " blood"]


def test_released_shots_have_the_cue_twice() -> None:
    assert "B. blood\nAnswer: Answer: A\n\n" in encoder(doubles_cue=True).text(RED, [BLUE])


def test_a_header_without_subject_ends_before_it() -> None:
    plain = Question(0, "0", "Red?", ("sky", "blood"), 1)
    assert encoder().text(plain, []).startswith("The following are single choice questions (with answers).\n\n")


def test_texts_begin_with_the_tokenizers_own_token() -> None:
    header_style = PromptEncoder(tiny_tokenizer("header"), TEXT_4, "letter")
    parts = header_style.encode(RED, header_style.context(RED, [BLUE]))
    given = header_style.tokenizer(HEADER)["input_ids"]
    assert list(parts.header) == given
    assert header_style.tokenizer.bos_token_id not in parts.shots


def test_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"\{qestion\}"):
        ShotTemplate(question="{qestion}")
