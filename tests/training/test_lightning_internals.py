"""The private interfaces of Lightning and torch that training uses or overrides, with their arguments."""

import inspect
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch.nn.parallel import DistributedDataParallel

METHODS: list[tuple[type, str, list[str]]] = [
    (_TrainingEpochLoop, "_should_accumulate", ["self"]),
    (_TrainingEpochLoop, "_should_check_val_fx", ["self", "data_fetcher"]),
    (_SignalConnector, "register_signal_handlers", ["self"]),
    (ModelCheckpoint, "_save_topk_checkpoint", ["self", "trainer", "monitor_candidates"]),
    (ModelCheckpoint, "_save_last_checkpoint", ["self", "trainer", "monitor_candidates"]),
    (ModelCheckpoint, "_should_skip_saving_checkpoint", ["self", "trainer"]),
    (ModelCheckpoint, "_should_save_on_train_epoch_end", ["self", "trainer"]),
    (ModelCheckpoint, "_should_remove_checkpoint", ["self", "trainer", "previous", "current"]),
    (ModelCheckpoint, "_remove_checkpoint", ["self", "trainer", "filepath"]),
    (ModelCheckpoint, "_monitor_candidates", ["self", "trainer"]),
    (ModelCheckpoint, "_find_last_checkpoints", ["self", "trainer"]),
    (ModelCheckpoint, "_link_checkpoint", ["trainer", "filepath", "linkpath"]),
    (RichProgressBar, "_update_metrics", ["self", "trainer", "pl_module"]),
    (RichProgressBar, "_get_train_description", ["self", "current_epoch"]),
    (LightningCLI, "_parse_ckpt_path", ["self"]),
    (LightningCLI, "_run_subcommand", ["self", "subcommand"]),
    (LightningCLI, "_get", ["self", "config", "key", "default"]),
    (
        DistributedDataParallel,
        "_set_params_and_buffers_to_ignore_for_model",
        ["module", "params_and_buffers_to_ignore"],
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "arguments"), METHODS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_private_method(owner: type, name: str, arguments: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == arguments


def test_private_attributes() -> None:
    trainer: Any = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    loop = trainer.fit_loop
    assert loop._data_fetcher is None
    assert loop.epoch_loop.batch_progress.current.ready == loop.epoch_loop.batch_progress.current.completed == 0
    assert loop.epoch_loop.batch_progress.is_last_batch is False
    assert trainer._accelerator_connector.cluster_environment is not None
    checkpoint = vars(ModelCheckpoint())
    names = {"_last_global_step_saved", "_last_checkpoint_saved", "_defer_save_until_validation"}
    assert names | {"_enable_version_counter", "_every_n_train_steps", "_every_n_epochs"} <= set(checkpoint)
    strategy = vars(ModelParallelStrategy())
    assert {"_data_parallel_size", "_save_distributed_checkpoint", "_device_mesh"} <= set(strategy)
