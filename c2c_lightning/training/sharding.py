"""FSDP2: the fuser, and by choice the frozen language models, sharded over all processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Shard
from torch.optim import Optimizer

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.training.resume import check_checkpoint, check_optimizers
from c2c_lightning.training.train_model import TrainModel


class FSDP2Strategy(ModelParallelStrategy):
    """`ModelParallelStrategy` over all processes, with checkpoints that one process can read.

    Weights and optimizer states are put together on the first process and written as one file, by the same checkpoint
    plugin as elsewhere. Such a file, and one of an unsharded run, resumes in any number of processes.
    """

    def __init__(self, save_distributed_checkpoint: bool = False, process_group_backend: str | None = None) -> None:
        """Shard over all processes.

        Args:
            save_distributed_checkpoint: each process writes its own piece, into a folder. Only for fusers that no
                process can hold: such a folder must be joined before it can be exported.
            process_group_backend: default nccl on GPUs, gloo on CPUs.
        """
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Make the processes one group; Lightning's own default shards over nodes only."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's whole state, on the first process, numbered as that of an unsharded run.

        Lightning numbers parameters by their order in the module instead of that in the optimizer's groups.
        """
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        named = get_optimizer_state_dict(self.model, getattr(optimizer, "optimizer", optimizer), options=options)
        return numbered_state(named) if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Restore the model's and the optimizers' state from one file; every process reads it and keeps its piece.

        Lightning takes the numbers of parameters in the optimizer's state for their order in the module, which they are
        in its own sharded checkpoints only.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            folder: dict[str, Any] = super().load_checkpoint(path, weights_only)
            return folder
        assert self.model is not None
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
        options = StateDictOptions(full_state_dict=True)
        assert self.lightning_module is not None
        check_checkpoint(checkpoint, self.lightning_module)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)
        saved = checkpoint.get("optimizer_states", [])
        check_optimizers(saved, self.optimizers)
        for optimizer, state in zip(self.optimizers, saved, strict=False):
            set_optimizer_state_dict(self.model, optimizer, named_state(state, self.model, optimizer), options=options)
        return checkpoint


def named_state(state: Mapping[str, Any], module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's saved state by names of parameters: numbers are positions in the optimizer's groups."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    named: dict[Any, str] = {}
    groups = []
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        here = [names[id(parameter)] for parameter in group["params"]]
        named |= dict(zip(saved["params"], here, strict=True))
        groups.append({**saved, "params": here})
    return {"state": {named[key]: value for key, value in state["state"].items()}, "param_groups": groups}


def numbered_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `named_state`: a parameter's number is its position in the optimizer's groups."""
    numbers: dict[str, int] = {}
    groups = []
    for group in state["param_groups"]:
        here = range(len(numbers), len(numbers) + len(group["params"]))
        numbers |= dict(zip(group["params"], here, strict=True))
        groups.append({**group, "params": list(here)})
    return {"state": {numbers[name]: value for name, value in state["state"].items()}, "param_groups": groups}


def mesh_of(strategy: Strategy) -> DeviceMesh | None:
    """The processes that share weights under a strategy; None where each has all of them.

    Raises:
        ConfigurationError: a strategy that splits single products among processes.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return None
    if strategy.device_mesh["tensor_parallel"].size() > 1:
        raise ConfigurationError(
            "the fuser has no tensor parallelism: set `tensor_parallel_size: 1` and `data_parallel_size` to the number "
            "of processes, or `trainer.strategy: c2c_lightning.training.sharding.FSDP2Strategy`, which does both."
        )
    return strategy.device_mesh["data_parallel"]


def check_shardable(config: FuserConfig, is_sharded: bool) -> None:
    """Refuse choices that sharded language models cannot make.

    Raises:
        ConfigurationError: nothing would be sharded, or processes would make unequal numbers of passes and wait for
            each other for ever.
    """
    if not is_sharded:
        raise ConfigurationError(
            "`shard_models` needs a strategy that shards: add `--config configs/trainer/fsdp2.yaml`, or set "
            "`trainer.strategy: c2c_lightning.training.sharding.FSDP2Strategy`."
        )
    if config.span_order != "one_pass" or config.fusion_mode in ("decode", "replace"):
        raise ConfigurationError(
            "`shard_models` gathers the language models block by block in all processes together, so each must make "
            f"as many passes; with span_order {config.span_order!r} and fusion_mode {config.fusion_mode!r} their "
            "number depends on the rows. Set `model.fuser.span_order: one_pass` (the same numbers where a prompt has "
            "one span) and fusion_mode `prefill` or `prompt`, or leave `shard_models` out: the fuser alone is sharded "
            "with any choice."
        )


def shard(model: TrainModel, mesh: DeviceMesh) -> None:
    """Shard the fuser of a model on its device; it is gathered as a whole for each batch."""
    world = mesh.size()

    def placement(parameter: nn.Parameter) -> Shard | None:
        # Stacked weights have the layers first, often too few for all processes. Other dimensions must be even.
        even = [dim for dim, size in enumerate(parameter.shape) if size % world == 0]
        return Shard(even[0]) if even else None

    fully_shard(model, mesh=mesh, reshard_after_forward=True, shard_placement_fn=placement)
    register_fsdp_forward_method(model, "batch_loss")


def shard_frozen(lm: FrozenLM, mesh: DeviceMesh, device: torch.device) -> None:
    """Shard a language model, which may be on the CPU, block by block, and move the rest of it to the device."""
    for block in lm.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    lm.model.to(device)
    lm.is_sharded = True
