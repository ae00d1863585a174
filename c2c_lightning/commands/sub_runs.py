"""`lightning fit` and `lightning test` as steps of an analysis, in the same process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.commands.shipped_configs import with_config_paths
from c2c_lightning.commands.trainer_cli import run_trainer
from c2c_lightning.evaluation.prediction_log import Prediction, PredictionLog


def run_step(command: str, configs: Sequence[str], options: Mapping[str, Any]) -> None:
    """Run a command of the Trainer.

    Args:
        command: `fit` or `test`.
        configs: its configurations: files, or names of the package.
        options: further options by dotted name; they win over the configurations.
    """
    words = [command]
    for config in configs:
        words += ["--config", config]
    for name, value in options.items():
        words.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    run_trainer(with_config_paths(words, command))


def run_test(configs: Sequence[str], folder: Path, options: Mapping[str, Any]) -> list[Prediction]:
    """Run `lightning test` without controls into a folder, and read its answers; an interrupted run goes on."""
    chosen = {"model.controls": [], "model.plots": False, "model.output_dir": str(folder)}
    run_step("test", configs, {**chosen, "trainer.default_root_dir": str(folder), **options})
    return PredictionLog(folder).read()
