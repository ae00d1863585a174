"""The progress bar of all runs: one line of at most 80 columns."""

from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.training._utils import is_log_step

#: Columns that a whole line needs without its bar, with steps of five digits.
_NARROW = 76

#: The logged values that are shown, by their names in words.
_SHOWN = {"train/loss": "loss", "val/loss": "validation loss"}


class FitProgressBar(ProgressBar):
    """Optimizer steps of the whole run, the time left, and the losses; a second line during a validation.

    Steps are counted from the Trainer's, so that a resumed run continues its count. Losses are read at the first step
    and as often as they are logged, since reading waits for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_enabled = True
        self._progress: Progress | None = None
        self._main: TaskID | None = None
        self._validation: TaskID | None = None
        self._losses: dict[str, float] = {}

    def enable(self) -> None:
        """Show the bar."""
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this in all processes but the first."""
        self._is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the steps that are done."""
        self._losses = {}
        self._main = self._add("step", trainer.estimated_stepping_batches, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count an optimizer step."""
        self._update(self._main, trainer.global_step)
        if "loss" not in self._losses or is_log_step(trainer):
            self._show_losses(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """A second line for a validation, also for that before training."""
        if self._validation is None:
            name = "first validation" if trainer.sanity_checking else "validation"
            totals = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
            self._validation = self._add(name, sum(totals))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count a batch."""
        self._update(self._validation, args[2] + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the second line."""
        if self._progress is not None and self._validation is not None:
            self._progress.remove_task(self._validation)
        self._validation = None
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._stop()  # Lightning prints the results now
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._show_losses(trainer, pl_module)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The line of an evaluation."""
        if self._main is None:
            self._main = self._add("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count a batch."""
        self._update(self._main, args[2] + 1)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """The line of a prediction."""
        if self._main is None:
            self._main = self._add("predict", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Count a batch."""
        self._update(self._main, args[2] + 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the last state on the terminal."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the last state on the terminal."""
        self._stop()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The losses by their names in words."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: float(metrics[key]) for key, name in _SHOWN.items() if key in metrics}  # type: ignore[arg-type]

    def show(self, text: str) -> None:
        """Text at the end of the line."""
        if self._progress is not None and self._main is not None:
            self._progress.update(self._main, values=text)

    def _show_losses(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_enabled:
            # Lightning forgets the validation's values at the next training step.
            self._losses |= self.get_metrics(trainer, pl_module)
            found = [(name, self._losses[name]) for name in _SHOWN.values() if name in self._losses]
            self.show(" ".join(f"{name} {value:.3f}" for name, value in found))

    def _add(self, name: str, total: float | int, completed: int = 0) -> TaskID | None:
        """A new line; the terminal is taken only now, so that bars of libraries before it are drawn as usual."""
        if not self._is_enabled:
            return None
        if self._progress is None:
            self._progress = Progress(*columns(ERROR_CONSOLE.width), console=ERROR_CONSOLE, refresh_per_second=5)
            self._progress.start()
        known = total if total != float("inf") else None
        return self._progress.add_task(name, total=known, completed=completed, values="")

    def _update(self, task: TaskID | None, completed: int) -> None:
        if self._progress is not None and task is not None:
            self._progress.update(task, completed=completed)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._main = self._validation = None


def columns(width: int = 80) -> list[ProgressColumn]:
    """Name, bar, count, time left, speed and values.

    The bar alone gives way at 80 columns of the terminal. Below `_NARROW` columns, name, count and values are left,
    since rich would cut the numbers.
    """
    whole = Column(no_wrap=True)
    if width < _NARROW:
        return [
            TextColumn("{task.description}", table_column=whole),
            CountColumn(table_column=whole),
            TextColumn("{task.fields[values]}", markup=False, table_column=whole),
        ]
    return [
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=None, table_column=Column(max_width=24)),
        CountColumn(table_column=whole),
        TimeLeftColumn(table_column=whole),
        SpeedColumn(table_column=whole),
        TextColumn("{task.fields[values]}", markup=False, table_column=whole),
    ]


class CountColumn(ProgressColumn):
    """Done and total, or the number that is done where there is no total."""

    def render(self, task: Task) -> Text:
        """Text of a line."""
        return Text(f"{int(task.completed)}" if task.total is None else f"{int(task.completed)}/{int(task.total)}")


class TimeLeftColumn(ProgressColumn):
    """The time that is left, and at the end the time that was needed."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Text of a line."""
        if task.finished:
            return Text(f"in {_clock(task.finished_time or 0.0)}")
        remaining = task.time_remaining
        return Text("" if remaining is None else f"{_clock(remaining)} left")


class SpeedColumn(ProgressColumn):
    """Steps a second, or seconds a step where they are slower."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Text of a line."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


def _clock(seconds: float | int) -> str:
    return str(timedelta(seconds=int(seconds)))
