"""Trains a fuser on facts and counts correct answers: the whole way from rows to replies, without data modules."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.optim import AdamW
from torch.utils.data import DataLoader

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Result
from benchmarks.gpu_day.lightning_runs import trainer_settings
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.embedded import facts
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.optim import ParameterGroups, Schedule

Row = dict[str, Any]


@dataclass(frozen=True)
class FactsTask:
    """A pair, its facts and a training run.

    Attributes:
        receiver: the model that answers.
        sharer: the model that knows, or reads, the answers.
        files: embedded files of facts, for training and held out.
        fuser: the fuser's choices.
        steps: optimizer steps.
        batch_size: rows a step.
        rate: highest learning rate.
        questions: held-out rows that are asked.
        precision: of the Trainer.
    """

    receiver: LMSpec
    sharer: LMSpec
    files: tuple[str, str]
    fuser: FuserConfig
    steps: int
    batch_size: int = 64
    rate: float = 0.002
    questions: int = 480
    precision: Any = "32-true"

    def run(self, day: Day) -> Result:
        """Train, then ask the fused model, the receiver alone, and the fused model with another question's cache."""
        L.seed_everything(42, verbose=False)
        module = C2CModule(
            self.receiver,
            [self.sharer],
            self.fuser,
            optimizer=lambda parameters: AdamW(parameters, lr=self.rate, weight_decay=0.01, fused=True),
            schedule=Schedule("cosine", 0.05),
            parameter_groups=ParameterGroups(10.0),
        )
        begin = time.perf_counter()
        self._fit(day, module)
        seconds = time.perf_counter() - begin
        model, rows = module.model.to(day.device).eval(), _rows(self.files[1])[: self.questions]
        other = [rows[(n + 7) % len(rows)] for n in range(len(rows))]
        return {
            "steps": self.steps,
            "train_seconds": seconds,
            "samples_per_second": self.steps * self.batch_size / seconds,
            "questions": len(rows),
            "accuracy": _accuracy(model, rows, rows),
            "accuracy_mismatched": _accuracy(model, rows, other),
            "accuracy_receiver": _accuracy(model, rows, rows, active_sharers=[]),
        }

    def _fit(self, day: Day, module: C2CModule) -> None:
        rows = _rows(self.files[0])
        private = [row.get("sharer_messages") for row in rows]
        examples = module.encoder.encode_examples([row["messages"] for row in rows], private)
        encoder = module.encoder
        loader: Any = DataLoader(
            examples,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=lambda some: collate_examples(some, encoder.receiver_pad_id, encoder.sharer_pad_ids),
        )
        with tempfile.TemporaryDirectory() as folder:
            settings = {**trainer_settings(day), "max_steps": self.steps, "precision": self.precision}
            L.Trainer(**settings, default_root_dir=Path(folder), devices=1).fit(module, loader)


def _rows(name: str) -> list[Row]:
    lines = facts(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@torch.no_grad()
def _accuracy(model: C2CModel, rows: Sequence[Row], read: Sequence[Row], **kwargs: Any) -> float:
    """Share of replies that begin with the answer; the sharer reads the prompts of `read`."""
    replies: list[str] = []
    for begin in range(0, len(rows), 64):
        asked = [row["messages"][:-1] for row in rows[begin : begin + 64]]
        shown = [row.get("sharer_messages", row["messages"]) for row in read[begin : begin + 64]]
        theirs = [[m for m in messages if m["role"] != "assistant"] for messages in shown]
        replies += model.chat(asked, theirs, max_new_tokens=8, do_sample=False, **kwargs)
    answers = [row["messages"][-1]["content"].strip(" .").casefold() for row in rows]
    right = [reply.strip().casefold().startswith(answer) for reply, answer in zip(replies, answers, strict=True)]
    return sum(right) / len(right)
