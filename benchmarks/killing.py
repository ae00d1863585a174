"""Processes that train until somebody kills them, and whether they did what they would have done unkilled."""

import logging
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

# Forked processes need not import these again.
import c2c_lightning.data.datamodule
import c2c_lightning.training.module  # noqa: F401
from benchmarks.cases import Case, Dying
from benchmarks.watched_fit import BEGAN, read_records
from c2c_lightning.cli import main as lightning

SHARE_OF_CHECKPOINT_KILLS = 1 / 3
# Seconds; a process that has lost its fellow may wait for it for ever.
_PATIENCE = 120.0


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        case: the case.
        kills: kills that were resumed from.
        in_checkpoints: how many of them came while a checkpoint was written.
        resumed: runs that were killed, resumed and ended.
        agreed: kills of those runs that agreed in everything.
        differences: what did not, in words.
    """

    case: Case
    kills: int = 0
    in_checkpoints: int = 0
    resumed: int = 0
    agreed: int = 0
    differences: list[str] = field(default_factory=list)


@dataclass
class BenchContext:
    """Runs cases.

    Attributes:
        folder: where runs go.
        config: what is trained.
        steps: optimizer steps of a run.
        chance: chooses the moments.
        on_kill: called after each kill.
    """

    folder: Path
    config: Path
    steps: int
    chance: random.Random = field(default_factory=random.Random)
    on_kill: Callable[[], None] = lambda: None

    def try_case(self, case: Case, kills: int) -> Outcome:
        """Compare a run that was not killed with runs that were.

        Args:
            case: how to train.
            kills: how often to kill, over as many runs as that takes.

        Raises:
            RuntimeError: when a run ends by itself with an error; its last words are in the message.
        """
        whole, killed = self.folder / "whole", self.folder / "killed"
        for left_behind in (whole, killed):
            shutil.rmtree(left_behind, ignore_errors=True)
        began = time.monotonic()
        self.run_once(case, whole)
        seconds, outcome = time.monotonic() - began, Outcome(case)
        while outcome.kills < kills:
            shutil.rmtree(killed, ignore_errors=True)
            before = outcome.kills
            while outcome.kills < kills and self._kill_once(case, killed, seconds, outcome):
                outcome.kills += 1
                self.on_kill()
            self.run_once(case, killed)
            found = differences(whole, killed, case.devices)
            outcome.resumed += 1
            outcome.agreed += 0 if found else outcome.kills - before
            outcome.differences += found
        return outcome

    def _kill_once(self, case: Case, folder: Path, seconds: float, outcome: Outcome) -> bool:
        """Start or resume a run and kill it; False if it was faster."""
        if self.chance.random() > SHARE_OF_CHECKPOINT_KILLS:
            return self._kill_at_any_moment(case, folder, seconds)
        was_killed = self._kill_in_checkpoint(case, folder)
        outcome.in_checkpoints += was_killed
        return was_killed

    def _kill_in_checkpoint(self, case: Case, folder: Path) -> bool:
        dying = Dying(self.chance.choice([1, 2, 3]), self.chance.uniform(0, 1.2))
        processes = self._start(case, folder, dying)
        wait([process.sentinel for process in processes], _PATIENCE)
        was_killed = processes[0].exitcode == -signal.SIGKILL
        end(processes, None if was_killed else folder)
        return was_killed

    def _kill_at_any_moment(self, case: Case, folder: Path, seconds: float) -> bool:
        processes = self._start(case, folder)
        while not (folder / BEGAN).exists() and all(process.is_alive() for process in processes):
            time.sleep(0.005)
        left = 1 - len(read_records(folder, 0)[0]) / max(1, len(read_records(self.folder / "whole", 0)[0]))
        wait([process.sentinel for process in processes], self.chance.uniform(0, seconds * max(left, 0.2)))
        was_running = all(process.is_alive() for process in processes)
        # One of them dies first, as when a machine fails; the others may notice.
        if was_running and len(processes) > 1:
            os.killpg(self.chance.choice(processes).pid or 0, signal.SIGKILL)
            time.sleep(self.chance.uniform(0, 0.2))
        end(processes, None if was_running else folder)
        return was_running

    def run_once(self, case: Case, folder: Path, dying: Dying | None = None) -> None:
        """Start or resume a run and wait for its end.

        Args:
            case: how to train.
            folder: of the run.
            dying: the checkpoint that is not finished, if any.

        Raises:
            RuntimeError: when it does not end well; its last words are in the message.
        """
        processes = self._start(case, folder, dying)
        wait([process.sentinel for process in processes])
        if not any(process.exitcode for process in processes):
            for process in processes:
                process.join()
        end(processes, folder)

    def _start(self, case: Case, folder: Path, dying: Dying | None = None) -> list[BaseProcess]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEGAN).unlink(missing_ok=True)
        arguments, port = case.arguments(folder, self.config, self.steps, dying), free_port()
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=train, args=(arguments, rank, case.devices, port, folder))
            for rank in range(case.devices)
        ]
        for process in processes:
            process.start()
        return list(processes)


def train(arguments: Sequence[str], rank: int, devices: int, port: int, folder: Path) -> None:
    """`lightning fit` in this process, as one of several.

    Args:
        arguments: command line.
        rank: which process this is.
        devices: how many there are.
        port: where they meet.
        folder: what they print goes to `log-RANK.txt`.
    """
    os.setpgrp()  # killed together with the workers of its data loaders
    log = os.open(folder / f"log-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    # Handlers of the process that this one was forked from write where that one writes.
    logging.getLogger().handlers.clear()
    if devices > 1:
        os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    lightning(arguments)


def end(processes: Sequence[BaseProcess], must_be_well_in: Path | None = None) -> None:
    """Kill what is left of a run, workers too.

    Args:
        processes: the run.
        must_be_well_in: the folder of a run that was not killed before.

    Raises:
        RuntimeError: when a process failed that must not.
    """
    codes = [process.exitcode for process in processes]
    for process in processes:
        with suppress(ProcessLookupError):  # dead already
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    if must_be_well_in is not None and any(codes):
        rank = next(rank for rank, code in enumerate(codes) if code)
        said = (must_be_well_in / f"log-{rank}.txt").read_text().splitlines()[-20:]
        raise RuntimeError("\n".join([f"A run that was not killed ended with exit codes {codes}:", *said]))


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def differences(whole: Path, killed: Path, devices: int) -> list[str]:
    """What a run that was killed did otherwise than one that was not, in words."""
    found: list[str] = []
    for rank in range(devices):
        expected, _ = read_records(whole, rank)
        records, again = read_records(killed, rank)
        found += again
        found += [f"{name} of process {rank} is missing" for name in expected.keys() - records.keys()]
        for name, record in records.items():
            other = expected.get(name, {})
            keys = [key for key in record if record[key] != other.get(key)]
            found += [f"{name} of process {rank}: {', '.join(keys)}"] if keys else []
    fusers = [(folder / "fuser" / "model.safetensors").read_bytes() for folder in (whole, killed)]
    return found if fusers[0] == fusers[1] else [*found, "the final fuser"]
