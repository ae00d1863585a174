"""The paper's recipe as shipped against the released loop: same start, same micro batches, same numbers.

`python -m tests.training.recipe` prints the differences; `test_released_training.py` asserts them.

Dropout is off: the released code draws its masks layer by layer, between the gates' draws, and no stack of layers can.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from c2c_lightning.cli import main
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.c2c import C2CModel
from tests.golden.parity import Row
from tests.training.released_loop import Recipe, ReleasedTraining, Run, Weights
from tests.training.released_weights import released_weights
from tests.training.runs import save_models

RECIPE = Path(__file__).parents[2] / "configs" / "fit" / "qwen3_0.6b_from_qwen2.5_0.5b.yaml"
# What makes the recipe average losses as the released code does; all else in it is the released code's.
AS_RELEASED = ["--model.loss_average", "batches"]
EPOCHS, ROWS, HELD_OUT, BATCH = 3, 26, 7, 3
LR, CLIP, ANNEAL, SEED = 0.003, 0.05, 10, 7
STEPS = EPOCHS * 5  # windows of two batches, the last one of an epoch of one
LOSS, GRADIENT, WEIGHT = 1e-5, 1e-4, 1e-5


class Recorder(Callback):
    """Keeps what went in and what came out; gates and noise begin at known places."""

    def __init__(self) -> None:
        self.run = Run()
        self.epochs: list[list[TrainingBatch]] = []
        self.held_out: list[TrainingBatch] = []
        self.start: list[dict[int, Weights]] = []
        self.model: C2CModel | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.model = pl_module.model
        spread_gates(self.model.fuser)
        self.start = released_weights(self.model.fuser)
        torch.manual_seed(SEED)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, number: int) -> None:
        if number == 0:
            self.epochs.append([])
        self.epochs[-1].append(batch)
        self.run.temperatures.append(float(next(pl_module.model.fuser.gates())[2].temperature[0]))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in pl_module.model.fuser.parameters() if p.grad is not None]
        self.run.norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        self.run.rates.append(rate)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.run.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, number: int, *_: Any) -> None:
        self.held_out = [*self.held_out[:number], batch]

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.run.weights = released_weights(pl_module.model.fuser)
        self.run.evaluation = float(trainer.callback_metrics["val/loss"])


def spread_gates(fuser: Fuser) -> None:
    """Open and shut gates of different logits, so that each matters in its own way."""
    generator = torch.Generator().manual_seed(1)
    for _, _, *gates in fuser.gates():
        for gate in gates:
            gate.logit.data.copy_(torch.randn(gate.logit.shape, generator=generator))


def write_rows(path: Path, first: int, count: int) -> str:
    """Questions and answers of very different lengths, and the file's name."""
    rows = [
        [
            {"role": "user", "content": f"What is the {'river ' * (n % 5)}of {n}?"},
            {"role": "assistant", "content": f"{n}" + " answer" * (n * 7 % 11)},
        ]
        for n in range(first, first + count)
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return str(path)


def fit_recipe(folder: Path, models: Path, sharers: int, options: list[str]) -> Recorder:
    """`lightning fit` with the recipe, over tiny models and rows."""
    recorder, original = Recorder(), L.Trainer.fit

    def recorded(trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.insert(0, recorder)
        original(trainer, *args, **kwargs)

    def source(name: str, first: int, count: int) -> str:
        path = write_rows(folder / name, first, count)
        return json.dumps({"class_path": "c2c_lightning.data.sources.Messages", "init_args": {"path": path}})

    settings = {
        "model.receiver": json.dumps({"path": str(models / "receiver"), "dtype": "float32"}),
        "model.sharers": json.dumps(
            [{"path": str(models / name), "dtype": "float32"} for name in ("sharer", "other_sharer")[:sharers]]
        ),
        "model.fuser.hidden_dim": 8,
        "model.fuser.intermediate_dim": 12,
        "model.fuser.dropout": 0.0,
        "model.fuser.anneal_steps": ANNEAL,
        "model.optimizer.init_args.lr": LR,
        "data.train": source("train.jsonl", 0, ROWS),
        "data.validation": source("validation.jsonl", 100, HELD_OUT),
        "data.batch_size": BATCH,
        "data.num_workers": 0,
        "data.cache_dir": folder / "cache",
        "trainer.default_root_dir": folder,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.strategy": "auto",
        "trainer.accumulate_grad_batches": 2,
        "trainer.max_epochs": EPOCHS,
        "trainer.val_check_interval": 1.0,
        "trainer.gradient_clip_val": CLIP,
        "trainer.callbacks": "null",
        "trainer.logger": "false",
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
    }
    given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    with mock.patch.object(L.Trainer, "fit", recorded):
        main(["fit", "--config", str(RECIPE), *given, *options])
    return recorder


def replay(recorder: Recorder, has_noise: bool) -> Run:
    """The same run by the released loop."""
    assert recorder.model is not None
    recipe = Recipe(STEPS, lr=LR, max_grad_norm=CLIP, anneal_steps=ANNEAL, has_noise=has_noise, seed=SEED)
    sharers = [sharer.model for sharer in recorder.model.sharers]
    loop = ReleasedTraining(recorder.model.receiver.model, sharers, recorder.start)
    return loop.train(recorder.epochs, recorder.held_out, recipe)


def difference(ours: list[float], theirs: list[float]) -> float:
    assert len(ours) == len(theirs)
    return max(abs(mine - their) / max(abs(their), 1.0) for mine, their in zip(ours, theirs, strict=True))


def weight_difference(ours: list[dict[int, Weights]], theirs: list[dict[int, Weights]]) -> float:
    return max(
        float((tensor - theirs[number][layer][name]).abs().max())
        for number, layers in enumerate(ours)
        for layer, weights in layers.items()
        for name, tensor in weights.items()
    )


def gates_of(weights: list[dict[int, Weights]]) -> list[dict[int, Weights]]:
    return [{n: {k: t for k, t in w.items() if "gate" in k} for n, w in sharer.items()} for sharer in weights]


def rows(recorder: Recorder, has_noise: bool) -> Iterator[Row]:
    """Every comparison of a run with the released loop."""
    ours, theirs = recorder.run, replay(recorder, has_noise)
    yield Row("losses of micro batches", LOSS, difference(ours.losses, theirs.losses))
    yield Row("gradient norms", GRADIENT, difference(ours.norms, theirs.norms))
    yield Row("learning rates", 0, difference(ours.rates, theirs.rates))
    yield Row("gate temperatures", 1e-6, difference(ours.temperatures, theirs.temperatures))  # a float32 buffer
    yield Row("gate logits", WEIGHT, weight_difference(gates_of(ours.weights), gates_of(theirs.weights)))
    yield Row("all weights", WEIGHT, weight_difference(ours.weights, theirs.weights))
    yield Row("evaluation loss", LOSS, abs(ours.evaluation - theirs.evaluation))


CASES = {"Gumbel noise": ("gumbel", 1), "hard gates": ("none", 1), "two sharers": ("gumbel", 2)}


def print_table() -> None:
    """Print what the tests assert."""
    logging.disable(logging.INFO)
    print(f"| after {STEPS} optimizer steps | tolerance | largest difference |\n| --- | --- | --- |")
    for name, (noise, sharers) in CASES.items():
        with TemporaryDirectory() as folder:
            models = save_models(Path(folder) / "models")
            recorder = fit_recipe(Path(folder), models, sharers, [*AS_RELEASED, "--model.fuser.gate_noise", noise])
            for row in rows(recorder, has_noise=noise == "gumbel"):
                print(f"| {name}: {row.what} | {row.tolerance:.0e} | {row.maximum:.1e} |")


if __name__ == "__main__":
    print_table()
