"""Whether language models are those that a fuser was trained for."""

import logging
from dataclasses import replace

import pytest

from c2c_lightning.errors import PairMismatchError
from c2c_lightning.export import check_models
from c2c_lightning.kv.geometry import KVGeometry
from tests.export.test_format import NARROW, RECEIVER, SHARER, description


def test_fitting_models_pass(caplog: pytest.LogCaptureFixture) -> None:
    described = description()
    check_models(described, RECEIVER, described.sharers)
    assert not caplog.records


def test_other_tokenizer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    described = description()
    with caplog.at_level(logging.WARNING):
        check_models(described, replace(RECEIVER, tokenizer_fingerprint="cccc"), described.sharers)
    assert "tokenizer or chat template of receiver org/receiver" in caplog.text


def test_pair_that_does_not_fit() -> None:
    described = description()
    other = replace(SHARER, name="org/third", geometry=KVGeometry((NARROW,) * 5))
    with pytest.raises(PairMismatchError, match=r"sharer 1 org/other \(4 layers, 1 KV heads.*org/third has 5 layers"):
        check_models(described, RECEIVER, (SHARER, other))
    with pytest.raises(PairMismatchError, match=r"has 2 sharers .* but 1 were given"):
        check_models(described, RECEIVER, (SHARER,))


def test_swapped_pair() -> None:
    described = replace(description(), sharers=(SHARER,))
    with pytest.raises(PairMismatchError, match="seem to be swapped"):
        check_models(described, SHARER, (RECEIVER,))
