"""The commands of the Trainer: their Lightning module and data module, by name, so that help needs no import."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunCommand:
    """One of the Trainer's methods over a module and a data module.

    Attributes:
        about: purpose, for its help.
        module: class of the Lightning module, below `c2c_lightning`.
        data: class of the data module, likewise.
        example: arguments of `--config` in an example.
    """

    about: str
    module: str
    data: str
    example: str


_TRAIN = ("training.module.C2CModule", "data.datamodule.InstructionDataModule")

RUN_COMMANDS = {
    "fit": RunCommand("Train a fuser.", *_TRAIN, "quickstart"),
    "validate": RunCommand(
        "Loss of a fuser, and of the receiver alone, on the same tokens.",
        *_TRAIN,
        "quickstart --ckpt_path runs/quickstart/checkpoints/last.ckpt",
    ),
    "test": RunCommand(
        "Benchmarks over responders: receiver, sharer, T2T, routing, C2C, controls.",
        "evaluation.evaluation_module.EvaluationModule",
        "evaluation.benchmark_datamodule.BenchmarkDataModule",
        "quickstart",
    ),
    "predict": RunCommand(
        "Write a fuser's answers to a file of conversations.",
        "prediction.prediction_module.PredictionModule",
        "prediction.prediction_module.ConversationDataModule",
        "quickstart",
    ),
}


def load_class(name: str) -> Any:
    """A class by its path below `c2c_lightning`."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"c2c_lightning.{module}"), attribute)
