"""What sharding refuses, and how an optimizer's state finds its parameters; runs are in test_processes.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from c2c_lightning.errors import CheckpointError, ConfigurationError
from c2c_lightning.export.from_checkpoint import load_checkpoint
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.training.sharding import FSDP2Strategy, check_shardable, mesh_of, named_state, numbered_state
from tests.training.runs import loader, module, trainer


@pytest.mark.parametrize("choices", [{}, {"span_order": "one_pass", "fusion_mode": "decode"}])
def test_passes_that_depend_on_the_rows_are_refused(choices: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="one_pass"):
        check_shardable(FuserConfig(**choices), is_sharded=True)  # type: ignore[arg-type]


def test_nothing_is_refused_that_is_in_step() -> None:
    for mode in ("prefill", "prompt"):
        check_shardable(FuserConfig(span_order="one_pass", fusion_mode=mode), is_sharded=True)  # type: ignore[arg-type]


def test_models_are_not_sharded_by_another_strategy(models: Path, tmp_path: Path) -> None:
    made = module(models, settings={"shard_models": True}, span_order="one_pass")
    with pytest.raises(ConfigurationError, match=r"configs/trainer/fsdp2\.yaml"):
        trainer(tmp_path, 1).fit(made, [])


def test_a_closed_form_of_a_sharded_fuser_is_refused(models: Path, tmp_path: Path) -> None:
    made = module(models, gate_noise="none", kind="ridge", options={"num_sources": 1, "num_tokens": 64})
    try:
        with pytest.raises(ConfigurationError, match="sharded fuser"):
            trainer(tmp_path, 1, strategy=FSDP2Strategy()).fit(made, loader(made, [[1]]))
    finally:
        torch.distributed.destroy_process_group()


def test_tensor_parallelism_is_refused() -> None:
    strategy = FSDP2Strategy()
    size = SimpleNamespace(size=lambda: 2)
    strategy._device_mesh = {"tensor_parallel": size}  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="tensor_parallel_size: 1"):
        mesh_of(strategy)
    assert mesh_of(SingleDeviceStrategy()) is None


def test_numbers_of_an_optimizers_state_are_places_in_its_groups() -> None:
    """Not in the module: groups have another order."""
    part = nn.ParameterDict({name: nn.Parameter(torch.full((1,), float(n))) for n, name in enumerate("abc")})
    optimizer = torch.optim.Adam([{"params": [part["c"]]}, {"params": [part["a"], part["b"]]}], lr=1.0)
    for parameter in part.values():
        parameter.grad = parameter.detach() + 1
    optimizer.step()
    named = named_state(optimizer.state_dict(), part, optimizer)
    assert [group["params"] for group in named["param_groups"]] == [["c"], ["a", "b"]]
    # Adam's first moment after one step is a tenth of the gradient.
    averages = {name: round(float(state["exp_avg"]), 4) for name, state in named["state"].items()}
    assert averages == {"a": 0.1, "b": 0.2, "c": 0.3}
    # Numbers are positions in the groups, not in the module.
    assert numbered_state(named) == optimizer.state_dict()


def test_the_whole_fuser_is_the_fuser_itself_in_one_process(models: Path, tmp_path: Path) -> None:
    made = module(models)
    trainer(tmp_path, 1).fit(made, loader(made, [[1]]))
    assert made.model.whole_fuser() is made.model.fuser


def test_pieces_are_no_checkpoint_to_export(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="consolidate_checkpoint"):
        load_checkpoint(tmp_path)
