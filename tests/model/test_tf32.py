"""TF32 is a default of CUDA devices only, chosen once per process, and never over a choice of the user."""

from collections.abc import Iterator

import pytest
import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model import tf32
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.tf32 import prefer_tf32
from tests.tiny import tiny_pair

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process without a choice; afterwards the precision is as before."""
    monkeypatch.setattr(tf32, "_decided", set())
    yield
    torch.set_float32_matmul_precision("highest")


def cpu_precision() -> str:
    return str(torch.backends.mkldnn.matmul.fp32_precision)


def test_cuda_gets_tf32_and_the_cpu_stays() -> None:
    before = cpu_precision()
    prefer_tf32(torch.device("cpu"))
    assert not torch.backends.cuda.matmul.allow_tf32
    prefer_tf32(CUDA)
    assert torch.backends.cuda.matmul.allow_tf32
    assert cpu_precision() == before


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_float32_matmul_precision("medium")
    prefer_tf32(CUDA)
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")  # after the first model
    prefer_tf32(CUDA)
    assert not torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(tf32, "_decided", set())
    monkeypatch.setenv(tf32.VARIABLE, "0")
    prefer_tf32(CUDA)
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_model_asks_for_it_where_it_is_made_and_where_it_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr("c2c_lightning.model.c2c.prefer_tf32", asked.append)
    receiver, sharer = load_frozen(tiny_pair(seed=0)), load_frozen(tiny_pair(seed=1))
    model = C2CModel(receiver, [sharer], FuserConfig(hidden_dim=8, intermediate_dim=8))
    assert asked == [receiver.device]
    monkeypatch.setattr(FrozenLM, "to", lambda self, device: None)
    model.to("meta")
    assert asked[-1] == torch.device("meta")
