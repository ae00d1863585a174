"""Log lines on a terminal: ours one line each, libraries quiet unless `--verbose` is given."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from c2c_lightning.commands import terminal_log
from c2c_lightning.commands.terminal_log import TerminalHandler, process_rank

TESTS = Path(__file__).parent.parent
NOISE = ("Loading weights", "Generating train split", "treespec", "Tip:", "GPU available", "TPU available")


def printed(capsys: pytest.CaptureFixture[str], level: int, message: str) -> str:
    record = logging.LogRecord("any", level, __file__, 1, message, None, None)
    TerminalHandler().emit(record)
    return capsys.readouterr().err


@pytest.fixture
def first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("first_process")
def test_a_record_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    path = "folder/" * 40 + "[file].png"
    line = printed(capsys, logging.INFO, f"picture of the run in {path}")
    assert re.fullmatch(rf"\d\d:\d\d:\d\d picture of the run in {re.escape(path)}\n", line)
    assert " warning: odd" in printed(capsys, logging.WARNING, "odd")


@pytest.mark.usefixtures("first_process")
def test_other_processes_print_warnings_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_rank() == 1
    assert printed(capsys, logging.INFO, "loading") == ""
    assert "warning: odd" in printed(capsys, logging.WARNING, "odd")
    monkeypatch.setenv("RANK", "0")
    assert "loading" in printed(capsys, logging.INFO, "loading")


@pytest.mark.parametrize(
    ("message", "is_kept"), [("GPU available: False, used: False", False), ("Seed set to 4", True)]
)
def test_messages_that_say_nothing_about_the_run_are_left_out(message: str, is_kept: bool) -> None:
    record = logging.LogRecord("lightning", logging.INFO, __file__, 1, message, None, None)
    assert terminal_log._is_about_this_run(record) is is_kept


def on_a_terminal(command: list[str], folder: Path, columns: int = 80) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    hidden = ("COLUMNS", "LINES", "PYTEST_CURRENT_TEST", "NO_COLOR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"TERM": "xterm"}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, cwd=folder, env=environment, **streams) as process:  # type: ignore[call-overload]
        os.close(theirs)
        read = io.BytesIO()
        try:
            while chunk := os.read(ours, 65536):
                read.write(chunk)
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0, read.getvalue().decode()
    os.close(ours)
    return read.getvalue().decode()


def frames(text: str) -> list[str]:
    """The lines of the progress bar, as drawn one after the other."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return [part.rstrip() for part in re.split(r"[\r\n]+", plain) if "\u2501" in part]


@pytest.mark.slow
@pytest.mark.parametrize("is_verbose", [False, True])
def test_a_fit_on_a_terminal_of_80_columns(tmp_path: Path, is_verbose: bool) -> None:
    options = ["--config", str(TESTS / "conf" / "fit.yaml"), "--trainer.enable_progress_bar", "true"]
    command = [sys.executable, "-m", "c2c_lightning", "fit", *options, *["--verbose"] * is_verbose]
    text = on_a_terminal(command, tmp_path)
    bars = frames(text)
    assert bars
    assert max(map(len, bars)) <= 80
    assert any(re.match(r"step .* 3/3 .* loss \d+\.\d+ validation loss \d+\.\d+$", bar) for bar in bars)
    assert text.count("Data:") == 1
    said = [noise for noise in NOISE if noise in text]
    assert ("Loading weights" in said) if is_verbose else not said
