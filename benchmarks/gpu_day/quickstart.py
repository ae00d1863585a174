"""The embedded quickstart on the device: the accuracy of the CPU."""

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.facts_task import FactsTask
from benchmarks.gpu_day.journal import Journal, Refuted, Result
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec

ON_CPU = 0.97
"""Held-out accuracy on a CPU is 99.6 ± 0.6 % over three seeds (docs/results.md); this is four spreads below it."""


def run(day: Day, journal: Journal) -> None:
    """Train and ask."""
    journal.check("embedded quickstart, accuracy as on the CPU", lambda: _quickstart(day))


def _quickstart(day: Day) -> Result:
    """The choices of `configs/fit/quickstart.yaml`."""
    steps = 4 if day.is_tiny else 600
    fuser = FuserConfig(
        hidden_dim=64,
        intermediate_dim=128,
        dropout=0.0,
        token_alignment="span",
        gate_noise="logistic",
        gate_init=1.0,
        temperature_schedule="linear",
        anneal_steps=steps,
    )
    specs = (LMSpec(f"embedded:{name}", dtype="float32") for name in ("receiver", "sharer"))
    task = FactsTask(*specs, ("train_chat", "heldout_chat"), fuser, steps, questions=16 if day.is_tiny else 480)
    result = task.run(day)
    if not day.is_tiny and result["accuracy"] < ON_CPU:
        raise Refuted(f"accuracy {result['accuracy']:.3f} is below {ON_CPU}", result)
    return result
