"""The progress bar: one line of 80 columns, losses in words from the first step, counts of the whole run."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from c2c_lightning.training.callbacks.progress_bar import FitProgressBar, columns
from tests.training.runs import loader, module, trainer


class WatchedBar(FitProgressBar):
    """Keeps what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[str, float, int]] = []
        self.texts: list[str] = []
        self.counts: list[int] = []

    def _add(self, name: str, total: float, completed: int = 0) -> Any:
        self.begun.append((name, total, completed))
        return super()._add(name, total, completed)

    def _update(self, task: Any, completed: int) -> None:
        if task is self._main:
            self.counts.append(completed)
        super()._update(task, completed)

    def show(self, text: str) -> None:
        self.texts.append(text)
        super().show(text)


def rendered(width: int, total: int | None, completed: int, values: str) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    progress = Progress(*columns(width), console=console)
    progress.add_task("step", total=total, completed=completed, values=values)
    console.print(progress)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("total", [15, 1929, 123_456, None])
def test_the_line_fits_80_columns_and_no_value_is_cut(total: int | None) -> None:
    values = "loss 12.345 validation loss 12.345"
    text = rendered(80, total, 12_345, values)
    (line,) = text.splitlines()
    assert len(line) <= 80
    assert values in line
    assert f"12345/{total}" in line if total else "12345" in line


@pytest.mark.parametrize("width", [60, 70])
@pytest.mark.parametrize("total", [600, 20_000])
def test_no_number_is_cut_on_a_narrow_terminal(width: int, total: int) -> None:
    values = "loss 12.345 validation loss 12.345"
    (line,) = rendered(width, total, 110, values).splitlines()
    assert f"step 110/{total} {values}" in line


def test_losses_are_shown_from_the_first_step_in_words(models: Path, tmp_path: Path) -> None:
    made, bar = module(models), WatchedBar()
    run = trainer(tmp_path, 3, log_every_n_steps=2, val_check_interval=2)
    run.callbacks.append(bar)
    run.fit(made, loader(made, [[1], [2], [3]]), loader(made, [[3, 4]]))
    assert bar.texts[0].startswith("loss ")
    # The validation after step 2 stays until the next one.
    assert " validation loss " in bar.texts[-1]
    assert bar.begun[0][0] == "step"
    assert bar.counts == [1, 2, 3]


def test_values_are_read_no_more_often_than_they_are_logged(models: Path, tmp_path: Path) -> None:
    made, bar = module(models), WatchedBar()
    run = trainer(tmp_path, 7, log_every_n_steps=3)
    run.callbacks.append(bar)
    run.fit(made, loader(made, [[n] for n in range(7)]))
    # Steps 1, 3 and 6.
    assert len(bar.texts) == 3


def test_a_resumed_run_continues_its_count(models: Path, tmp_path: Path) -> None:
    made = module(models)
    run = trainer(tmp_path, 3)
    run.fit(made, loader(made, [[n] for n in range(5)]))
    run.save_checkpoint(tmp_path / "three.ckpt")
    again, bar = module(models), WatchedBar()
    run = trainer(tmp_path, 5)
    run.callbacks.append(bar)
    run.fit(again, loader(again, [[n] for n in range(5)]), ckpt_path=str(tmp_path / "three.ckpt"))
    assert bar.begun == [("step", 5, 3)]
    assert bar.counts == [4, 5]
