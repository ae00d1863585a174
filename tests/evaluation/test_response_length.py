"""Response length against receiver and sharer."""

from c2c_lightning.evaluation.response_length import length_table, response_lengths
from tests.evaluation.predictions import answered


def test_lengths_and_paired_differences() -> None:
    right = [True, False, True]
    predictions = answered("receiver", right, 2) + answered("sharer", right, 10) + answered("c2c", right, 5)
    found = response_lengths(predictions)
    assert (found["c2c"].mean, found["c2c"].median, found["c2c"].longest) == (6.0, 6.0, 7)
    assert found["c2c"].differences == {"receiver": (3.0, 3.0, 3.0), "sharer": (-5.0, -5.0, -5.0)}
    assert "receiver" not in found["receiver"].differences
    assert length_table("facts", found).row_count == 3


def test_answers_with_an_error_are_left_out() -> None:
    predictions = answered("receiver", [True], 3) + answered("c2c", [False], error="PromptError")
    assert set(response_lengths(predictions)) == {"receiver"}
