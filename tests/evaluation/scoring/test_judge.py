"""Scoring: choices, log-probabilities, maths, LongBench."""

import math

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.scoring.judge import follows, judge_reply, judge_scores, options_of
from c2c_lightning.evaluation.scoring.longbench import (
    class_match,
    code_similarity,
    longbench_score,
    number_match,
    rouge_l,
    word_f1,
)
from c2c_lightning.evaluation.scoring.maths import judge_maths
from c2c_lightning.evaluation.tasks import Question, Task, resolve
from c2c_lightning.evaluation.tasks.longbench_prompts import LONGBENCH_PROMPTS, longbench_prompt
from c2c_lightning.responders.base import OptionScores

CITIES = Question(0, "a", "Capital?", ("Lyon", "Paris", "Aix-en-Provence"), 1)
DONOR = Question(1, "b", "Other?", ("Lyon", "Paris", "Aix-en-Provence"), 2)
PAPER = resolve(Task("mine", path="x", mode="generate"))
TEXT = resolve(Task("mine", "x", wording="question", scoring="choice_text"))


def scores(*values: float, tokens: tuple[int, ...] = (1, 2, 5)) -> OptionScores:
    return OptionScores(values, tokens, (False,) * len(values))


def test_replies_with_letters_and_with_texts() -> None:
    right = judge_reply("The correct answer is B", CITIES, PAPER)
    assert (right.extracted, right.score, right.choice) == ("B", 1.0, 1)
    text = judge_reply(" Paris.", CITIES, TEXT)
    assert (text.extracted, text.score) == ("Paris", 1.0)
    nothing = judge_reply("hm", CITIES, TEXT)
    assert (nothing.extracted, nothing.score, nothing.choice) == (None, 0.0, None)


def test_each_of_several_right_choices_counts() -> None:
    both = Question(0, "a", "Prime?", ("2", "3", "4"), 0, also_right=(1,))
    assert [judge_reply(f"The correct answer is {x}", both, PAPER).score for x in "ABC"] == [1.0, 1.0, 0.0]
    assert both.gold_letter == "A, B"
    assert follows(judge_reply("B", CITIES, PAPER), CITIES, both, PAPER)


def test_likelihoods_by_length() -> None:
    given = scores(-4.0, -6.0, -7.0)
    by = {
        rule: Task("m", "x", mode="cloze", normalise=rule, wording="question")
        for rule in ("characters", "tokens", "none")
    }  # type: ignore[arg-type]
    assert judge_scores(given, CITIES, by["none"]).choice == 0
    assert judge_scores(given, CITIES, by["tokens"]).choice == 2
    assert judge_scores(given, CITIES, by["characters"]).choice == 2
    confidence = judge_scores(given, CITIES, by["none"]).confidence
    assert confidence == pytest.approx(math.exp(-4) / (math.exp(-4) + math.exp(-6) + math.exp(-7)))


def test_nan_log_probabilities_are_an_error() -> None:
    with pytest.raises(BenchmarkError, match="NaN"):
        judge_scores(scores(-4.0, math.nan, -7.0), CITIES, PAPER)


def test_letters_are_compared_without_length() -> None:
    letters = Task("m", "x", mode="letter", wording="paper")
    assert options_of(CITIES, letters)[1] == "The correct answer is B"
    assert judge_scores(scores(-9.0, -2.0, -3.0), CITIES, letters).extracted == "B"


def test_following_the_donor() -> None:
    assert follows(judge_reply("C", CITIES, PAPER), CITIES, DONOR, PAPER)
    assert not follows(judge_reply("B", CITIES, PAPER), CITIES, DONOR, PAPER)
    assert not follows(judge_reply("?", CITIES, PAPER), CITIES, DONOR, PAPER)
    assert follows(judge_reply("aix-en-provence", CITIES, TEXT), CITIES, DONOR, TEXT)
    colours = Question(2, "c", "Colour?", ("red", "blue"), 0)
    assert follows(judge_reply("red", CITIES, TEXT), CITIES, colours, TEXT)
    assert not follows(judge_reply("blue", CITIES, TEXT), CITIES, colours, TEXT)
    cloze = Task("m", "x", mode="cloze", normalise="none", wording="question")
    chosen = judge_scores(scores(-4.0, -6.0, -3.0), CITIES, cloze)
    assert follows(chosen, CITIES, DONOR, cloze)
    # The donor's answer is no choice, so following it is undefined.
    assert follows(chosen, CITIES, colours, cloze) is None


@pytest.mark.parametrize(
    ("reply", "reference", "is_right"),
    [
        ("Adding up.\nAnswer: 18", "18", True),
        ("Answer: $18.00", "18", True),
        ("Answer: 0.5", "\\frac{1}{2}", True),
        ("Answer: 1,234", "1234", True),
        ("so \\boxed{x^2+1}", "x^2 + 1", True),
        ("Answer: 3\nNo, wait.\nAnswer: 4", "4", True),
        ("Answer: 19", "18", False),
        ("I do not know", "18", False),
    ],
)
def test_maths_answers_by_meaning(reply: str, reference: str, is_right: bool) -> None:
    pytest.importorskip("math_verify")
    assert judge_maths(reply, reference)[1] is is_right


def test_longbench_scores() -> None:
    assert word_f1("The big Cat.", "a cat") == pytest.approx(2 / 3)
    assert word_f1("dog", "cat") == 0.0
    assert rouge_l("a b c d", "a c e") == pytest.approx(2 * 2 / 7)
    assert class_match("It is City or Country", "City", ["City", "Country", "Date"]) == 0.5
    assert class_match("Other city", "Other city", ["city", "Other city"]) == 1.0
    assert number_match("3 or 5", "Paragraph 5") == 0.5
    assert number_match("none", "5") == 0.0
    assert code_similarity("# comment\nx = 1\ny", "x = 1") == 1.0
    assert longbench_score("Paris\nand more", "triviaqa", ["Rome", "Paris"]) == 1.0
    assert longbench_score("City", "trec", ["City"], ["City", "Date"]) == 1.0


def slow_lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + slow_lcs(a[1:], b[1:])
    return max(slow_lcs(a[1:], b), slow_lcs(a, b[1:]))


@pytest.mark.parametrize(("a", "b"), [("a b a c", "b a c a"), ("x", "x"), ("a b c", "c b a"), ("a a b", "b a a")])
def test_rouge_l_against_the_definition(a: str, b: str) -> None:
    common = slow_lcs(a.split(), b.split())
    assert rouge_l(a, b) == pytest.approx(2 * common / (len(a.split()) + len(b.split())))


def test_longbench_prompts() -> None:
    assert len(LONGBENCH_PROMPTS) == 13
    prompt = longbench_prompt("hotpotqa", "Text with {input} inside.", "Who?")
    assert "Text with {input} inside." in prompt
    assert prompt.endswith("Question: Who?\nAnswer:")
    with pytest.raises(BenchmarkError, match="unknown LongBench-E task 'nonsense'"):
        longbench_prompt("nonsense", "", "")


def test_free_answers_are_scored_by_exact_match_and_f1_of_their_first_line() -> None:
    squad = resolve(Task("mine", "x", rows="document", wording="question", mode="generate", scoring="squad"))
    question = Question(0, "a", "What does she draw?", references=("lamps", "old lamps"))
    right = judge_reply(" The lamps.\n\nQuestion: And he?", question, squad)
    assert (right.extracted, right.score, right.f1) == ("The lamps.", 1.0, 1.0)
    partly = judge_reply("new lamps", question, squad)
    assert (partly.score, partly.f1) == (0.0, pytest.approx(2 / 3))
    nothing = judge_reply("\n", question, squad)
    assert (nothing.extracted, nothing.score, nothing.f1) == (None, 0.0, 0.0)
    donor = Question(1, "b", "Other?", references=("new lamps",))
    assert follows(partly, question, donor, squad)
    assert not follows(right, question, donor, squad)
