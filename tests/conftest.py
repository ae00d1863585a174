"""What every test shares: one thread, no network, fixed seeds, and errors instead of deprecation warnings."""

import logging
import os

# Before transformers and huggingface_hub are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("WANDB_MODE", "offline")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

import tests.typecheck  # noqa: F401  (jaxtyping finds it as an attribute of `tests` only)
from tests.training.runs import save_models


class _NoDeprecations(logging.Handler):
    """Transformers announces most removals through its logger, where warning filters do not see them."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "deprecated" in message.lower():
            raise DeprecationWarning(message)


def pytest_configure() -> None:
    """One thread a worker: tiny models only lose by more."""
    torch.set_num_threads(1)
    transformers_logging.get_logger("transformers").addHandler(_NoDeprecations())


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Same random numbers in every test, whatever ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _ragged_rows_are_packed() -> Iterator[None]:
    """Tiny models run ragged rows as one, as large ones do, though they do not gain by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("c2c_lightning.model.frozen_lm.SEQUENCE_FLOP", 0)
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny models `receiver` and `sharer`."""
    return save_models(tmp_path_factory.mktemp("models"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip by themselves where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
