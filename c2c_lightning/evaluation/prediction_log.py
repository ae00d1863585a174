"""Scored answers, and their file, which an interrupted evaluation resumes from."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Key = tuple[str, str, int, int, int]
"""Benchmark, responder, fuser, draw, row."""


@dataclass(frozen=True)
class Prediction:
    """One answer to one question; fields that are not explained here are those of `Reply` and `Participant`.

    Attributes:
        index: row of the question in its benchmark.
        id: name of the row.
        subject: field of knowledge.
        prompt: the user's last message.
        output: the generated text, or the option with the highest log-probability.
        extracted: the answer extracted from it, None if there is none.
        gold: the right answer, in the same form.
        score: 0 (wrong) to 1 (right).
        correct: whether it counts as right.
        confidence: probability of the chosen option among the options, where known.
        donor: row of the question whose cache was used instead (mismatched).
        follows_donor: whether the answer is the donor's right one.
        error: the error that the question raised; the answer counts as wrong.
        peak_memory: most bytes in use during the question's batch, where it can be measured.
        log_probabilities: of the options, in modes letter and cloze.
        begins_with_choice: whether no answer was extracted although the reply begins with the text of a choice.
        f1: F1 over words, with `scoring: squad`.
        written: in mode cloze, whether greedy decoding would begin with the text of a right choice.
    """

    benchmark: str
    responder: str
    draw: int
    index: int
    id: str
    subject: str
    prompt: str
    output: str
    extracted: str | None
    gold: str
    score: float
    correct: bool
    seconds: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    message: str | None = None
    phases: dict[str, float] | None = None
    confidence: float | None = None
    donor: int | None = None
    follows_donor: bool | None = None
    error: str | None = None
    fuser: int = 0
    sharer_tokens: int = 0
    message_tokens: int = 0
    peak_memory: int | None = None
    log_probabilities: list[float] | None = None
    begins_with_choice: bool = False
    shifted_positions: bool = False
    matches_unfused: bool | None = None
    bytes_sent: int = 0
    written: bool | None = None
    f1: float | None = None

    @property
    def key(self) -> Key:
        """Identifies question, responder, fuser and draw."""
        return self.benchmark, self.responder, self.fuser, self.draw, self.index


class PredictionLog:
    """Predictions on disk: each process appends to a file of its own; the first process joins them at the end.

    An interrupted run resumes after its last batch; a run with another fingerprint starts from the beginning.
    """

    def __init__(self, directory: str | Path, rank: int = 0) -> None:
        self.directory = Path(directory)
        self._parts = self.directory / ".parts"
        self._own = self._parts / f"{rank}.jsonl"
        self._final = self.directory / "predictions.jsonl"

    def start(self, fingerprint: str, description: dict[str, Any]) -> None:
        """Prepare the folder; in the first process only, before the others read it.

        The description has the values that the fingerprint depends on.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        marker = self.directory / "run.json"
        if _fingerprint_in(marker) != fingerprint:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._final.unlink(missing_ok=True)
            write_atomically(marker, json.dumps({"fingerprint": fingerprint, **description}, indent=2) + "\n")
        self._parts.mkdir(exist_ok=True)

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write a batch, flushed to disk."""
        with self._own.open("a", encoding="utf-8") as file:
            # A killed run may have left half a line.
            file.write("\n" * _is_truncated(self._own) + _lines(predictions))
            # On disk before the next batch: answers may take hours, and machines are preempted.
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Prediction]:
        """All predictions so far, of all processes; each key once."""
        # The parts last: they are newer than a joined file.
        files = [self._final, *sorted(self._parts.glob("*.jsonl"))]
        found = {p.key: p for file in files if file.is_file() for p in _read(file)}
        return list(found.values())

    def join(self, order: Sequence[Key], gathered: Iterable[Prediction] = ()) -> list[Prediction]:
        """Join all predictions into one file, in the order of this run's keys; in the first process only.

        `gathered` are predictions of processes that write to other disks; those of other keys are dropped.
        """
        found = {prediction.key: prediction for prediction in (*gathered, *self.read())}
        predictions = [found[key] for key in order if key in found]
        write_atomically(self._final, _lines(predictions))
        shutil.rmtree(self._parts)
        return predictions


def _lines(predictions: Iterable[Prediction]) -> str:
    return "".join(json.dumps(asdict(prediction), ensure_ascii=False) + "\n" for prediction in predictions)


def _is_truncated(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 1))
        return opened.read(1) not in (b"", b"\n")


def _fingerprint_in(marker: Path) -> str | None:
    try:
        return str(json.loads(marker.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def _read(file: Path) -> Iterable[Prediction]:
    names = {field.name for field in fields(Prediction)}
    # Not `splitlines`: texts contain line separators that JSON does not escape.
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            yield Prediction(**{name: value for name, value in row.items() if name in names})
        except (ValueError, TypeError):
            # The process was killed during this write; the question is answered again.
            logger.warning("%s:%d is incomplete; the question is answered again", file, number)


def write_atomically(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: `replace` is atomic within one file system only.
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)
