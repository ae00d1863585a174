"""The callbacks of every fuser training, from the command line and from Python."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch.callbacks import Callback

from c2c_lightning.training.callbacks.fit_closed_form import FitClosedForm
from c2c_lightning.training.callbacks.gate_monitor import GateMonitor
from c2c_lightning.training.callbacks.log_interval import LogInterval
from c2c_lightning.training.callbacks.non_finite_guard import NonFiniteGuard
from c2c_lightning.training.callbacks.random_state import RandomState
from c2c_lightning.training.callbacks.stop_on_signal import StopOnSignal
from c2c_lightning.training.callbacks.temperature import AnnealTemperature
from c2c_lightning.training.callbacks.throughput import Throughput
from c2c_lightning.training.callbacks.token_average import TokenAverage
from c2c_lightning.training.callbacks.validation_line import ValidationLine
from c2c_lightning.training.resume import ResumeCheck
from c2c_lightning.training.run_folder import RunFolder


def training_callbacks(
    configured: Sequence[Callback], loss_average: Literal["tokens", "batches"], non_finite: Literal["stop", "skip"]
) -> list[Callback]:
    """The default callbacks, without those that the Trainer has already."""
    # The guard checks the gradients that clipping and the optimizer use: after the average.
    average = [TokenAverage()] if loss_average == "tokens" else []
    # A closed form is fitted before `ResumeCheck` counts the fuser as trained.
    checks = [RunFolder(), FitClosedForm(), ResumeCheck(), LogInterval(), *average, NonFiniteGuard(non_finite)]
    defaults = [
        *checks,
        AnnealTemperature(),
        RandomState(),
        GateMonitor(),
        Throughput(),
        ValidationLine(),
        StopOnSignal(),
    ]
    present = {type(callback) for callback in configured}
    return [callback for callback in defaults if type(callback) not in present]
