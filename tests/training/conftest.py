"""Models on disk, made once."""

from pathlib import Path

import pytest

from tests.training.runs import save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `receiver` and `sharer`."""
    return save_models(tmp_path_factory.mktemp("models"))
