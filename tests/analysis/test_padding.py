import json
from pathlib import Path

import numpy as np
import pytest

from c2c_lightning.analysis.padding_report import padding_report
from c2c_lightning.data.row_lengths import Lengths
from tests.data.loading.test_length_buckets import long_tailed


def test_batches_by_length_have_less_padding() -> None:
    released, by_rows, by_tokens = padding_report(long_tailed(400), 4, 4000).ways
    assert released.tokens == by_rows.tokens == by_tokens.tokens
    assert released.batches == by_rows.batches == 100
    assert released.share > 0.3
    assert by_rows.share < released.share / 3
    assert by_tokens.share < released.share / 3


def test_released_rows_contain_prompt_and_response() -> None:
    # Two rows: receiver 3 + 4 and 5 + 1 tokens, sharer 2 and 6.
    lengths = Lengths(np.array([[3, 2], [5, 6]]), np.array([4, 1]))
    released, by_rows = padding_report(lengths, 2).ways
    assert (released.tokens, released.padded_tokens) == (21, 2 * (7 + 6))
    assert released.share == pytest.approx(1 - 21 / 26)
    # Ours pads prompts on the left and responses on the right, apart from each other.
    assert by_rows.padded_tokens == 2 * (5 + 6 + 4)


def test_text_and_numbers(tmp_path: Path) -> None:
    report = padding_report(long_tailed(100), 4, 1000)
    assert "by length, at most 1,000 tokens" in report.to_text()
    saved = json.loads(report.save(tmp_path / "padding.json").read_text())
    assert saved["rows"] == 100
    assert saved["ways"][0]["share"] == report.ways[0].share
