"""Small training runs: models in a folder, batches, a module and a trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.optim import ParameterGroups, Schedule
from tests.tiny import tiny_pair

SMALL: dict[str, Any] = {"hidden_dim": 8, "intermediate_dim": 12, "dropout": 0.0, "gate_init": 0.5}


def save_models(folder: Path) -> Path:
    """A receiver and a sharer of other sizes, as directories."""
    for name, family, seed in (("receiver", "qwen3", 0), ("sharer", "llama", 1), ("other_sharer", "gemma3", 2)):
        model, tokenizer = tiny_pair(family, seed)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def module(
    models: Path,
    gate_rate: float = 1.0,
    decay_all: bool = False,
    lr: float = 0.01,
    plain: bool = False,
    loss_average: Any = "tokens",
    settings: Mapping[str, Any] | None = None,
    **choices: Any,
) -> C2CModule:
    """A module over the models of `save_models`, with further `settings` of its own and `choices` of its fuser.

    `plain` takes gradients as steps, so that they can be compared.
    """

    def optimizer(parameters: Any) -> Any:
        return SGD(parameters, lr=lr) if plain else AdamW(parameters, lr=lr, weight_decay=0.01, fused=True)

    return C2CModule(
        LMSpec(str(models / "receiver")),
        [LMSpec(str(models / "sharer"))],
        FuserConfig(**{**SMALL, **choices}),
        optimizer=optimizer,
        schedule=Schedule("constant_with_warmup", 0.0) if plain else Schedule("linear", 0.1),
        parameter_groups=ParameterGroups(gate_rate, decay_all),
        loss_average=loss_average,
        **(settings or {}),
    )


def batch(trained: C2CModule, rows: Sequence[int]) -> TrainingBatch:
    """A batch of numbered rows; questions and answers are of very different lengths."""
    examples = [
        trained.encoder.encode_example(
            [
                {"role": "user", "content": f"What is the {'river ' * (number % 5)}of {number}?"},
                {"role": "assistant", "content": f"{number}" + " answer" * (number * 7 % 11)},
            ]
        )
        for number in rows
    ]
    return collate_examples(examples, 0, [0] * len(trained.encoder.strategies))


def loader(trained: C2CModule, batches: Sequence[Sequence[int]]) -> DataLoader[Any]:
    """Batches of numbered rows, in order."""
    made: Any = [batch(trained, rows) for rows in batches]
    return DataLoader(made, batch_size=None)


def trainer(folder: Path, steps: int, callbacks: Sequence[Callback] = (), **settings: Any) -> L.Trainer:
    """A silent trainer on the CPU."""
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": None,
        "log_every_n_steps": 1,
    }
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{**defaults, **settings},
    )


def write_rows(path: Path, count: int = 24) -> str:
    """A JSON lines file of conversations, and its name."""
    rows = [
        {"messages": [{"role": "user", "content": f"Who is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Losses(Callback):
    """Keeps the loss of every batch, to the last bit."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(float(outputs["loss"]))
