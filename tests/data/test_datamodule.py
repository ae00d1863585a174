"""What the data module refuses before anything is read."""

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import DataError


@pytest.mark.parametrize("name", ["batch_size", "max_tokens_per_batch"])
def test_empty_batches_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"`{name}` must be at least 1, but is 0"):
        InstructionDataModule(Messages("embedded:facts/train_chat"), **{name: 0})
