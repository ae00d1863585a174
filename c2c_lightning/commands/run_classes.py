"""The commands of the Trainer: their Lightning module and data module, by name, so that help needs no import."""

import importlib
from collections.abc import Sequence
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
        others: further groups of options: key and class, likewise.
    """

    about: str
    module: str
    data: str
    example: str
    others: tuple[tuple[str, str], ...] = ()


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

ORACLE_RUNS = {
    "oracle transform": RunCommand(
        "Train maps from a sharer's cache to a receiver's, and measure them on held-out text (paper, Fig. 3).",
        "training.transform_module.TransformModule",
        "data.datamodule.InstructionDataModule",
        "quickstart_transform",
        (("measure", "commands.oracle_transform.TransformMeasurement"),),
    ),
}
"""Experiments that train, by both their words."""

_TRAIN_HUB = ("training.hub_module.HubModule", "data.hub_datamodule.HubDataModule")

HUB_RUNS = {
    "fuser-hub fit": RunCommand("Train the fusers between many models jointly.", *_TRAIN_HUB, "quickstart_hub"),
    "fuser-hub validate": RunCommand(
        "Losses of every direction of a hub: with fusion, with another row's cache, and of the receiver alone.",
        *_TRAIN_HUB,
        "quickstart_hub --ckpt_path runs/quickstart_hub/checkpoints/last.ckpt",
    ),
}
"""Trainings of a hub, by both their words."""

RUNS = RUN_COMMANDS | ORACLE_RUNS | HUB_RUNS


def run_name(args: Sequence[str]) -> str:
    """The words of a command line that name its run; the first word where it is none."""
    name = " ".join(args[:2])
    return name if name in RUNS else args[0]


def load_class(name: str) -> Any:
    """A class by its path below `c2c_lightning`."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"c2c_lightning.{module}"), attribute)
