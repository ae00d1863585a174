"""The run whose scaling is measured: rows of the length that they are to have."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from benchmarks import weak_scaling
from tests.profiling.pairs import tiny


def test_rows_have_one_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weak_scaling, "small_pair", tiny)
    config = yaml.safe_load(weak_scaling.write_run(tmp_path, rows=12).read_text())
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["receiver"]["path"])
    rows = [json.loads(line)["messages"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for row in rows:
        prompt = tokenizer.apply_chat_template(row[:1], add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template(row)["input_ids"]
        assert (len(prompt), len(whole) - len(prompt)) == (120, 60)
