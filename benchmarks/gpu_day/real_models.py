"""The private-text task with real models, if their folders are given."""

from pathlib import Path

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.facts_task import FactsTask
from benchmarks.gpu_day.journal import Journal, Refuted, Result, Skipped
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec


def run(day: Day, journal: Journal) -> None:
    """Train and ask."""
    journal.check("private texts with real models: the right cache beats another one", lambda: _private_texts(day))


def _private_texts(day: Day) -> Result:
    if day.models is None:
        raise Skipped("no models: name a folder that holds `receiver` and `sharer` with --models")
    specs = [LMSpec(str(_folder(day.models / name)), dtype="bfloat16") for name in ("receiver", "sharer")]
    steps = 4 if day.is_tiny else 300
    fuser = FuserConfig(
        hidden_dim=512, intermediate_dim=512, dropout=0.0, token_alignment="span", gate_init=1.0, anneal_steps=steps
    )
    files = ("private_context_train", "private_context_heldout")
    result = FactsTask(*specs, files, fuser, steps, 32, 5e-4, questions=16 if day.is_tiny else 320).run(day)
    if not day.is_tiny and result["accuracy"] <= result["accuracy_mismatched"] + 0.05:
        raise Refuted("the right cache is worth no more than another question's", result)
    return result


def _folder(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise Skipped(f"{path} holds no config.json")
    return path
