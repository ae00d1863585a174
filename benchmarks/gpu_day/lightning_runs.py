"""Runs of the Lightning Trainer on the device: resumption, DDP and FSDP2 with one process, waits for the device."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.host_sync import listed_waits
from benchmarks.gpu_day.journal import Journal, Refuted, Result, Skipped
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.embedded import facts
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.checkpoint_io import AtomicCheckpointIO
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.optim import Schedule
from c2c_lightning.training.sharding import FSDP2Strategy

Weights = dict[str, torch.Tensor]


def run(day: Day, journal: Journal) -> None:
    """Run all checks."""
    journal.check("two equal runs are equal bit for bit", lambda: repeated(day))
    journal.check("save and resume, bit for bit", lambda: resumed(day))
    journal.check("waits of the whole Lightning step", lambda: waits_of_a_step(day))
    for strategy in ("ddp", "fsdp2"):
        journal.check(f"{strategy} with one process equals no strategy", partial(one_process, day, strategy))


def module(**choices: Any) -> C2CModule:
    """The embedded pair with a small fuser."""
    fuser = {"hidden_dim": 32, "intermediate_dim": 32, "token_alignment": "span", "anneal_steps": 10, **choices}
    sharers = [LMSpec("embedded:sharer", dtype="float32")]
    # A constant rate: that of the other schedules depends on the number of steps.
    schedule = Schedule("constant_with_warmup", 0.0)
    return C2CModule(LMSpec("embedded:receiver", dtype="float32"), sharers, FuserConfig(**fuser), schedule=schedule)


def batches(made: C2CModule, count: int, size: int = 4) -> list[TrainingBatch]:
    """The first rows of the embedded facts, in batches."""
    lines = facts("train_chat.jsonl").read_text(encoding="utf-8").splitlines()
    examples = made.encoder.encode_examples([json.loads(line)["messages"] for line in lines[: count * size]])
    pads = made.encoder.receiver_pad_id, made.encoder.sharer_pad_ids
    return [collate_examples(examples[n : n + size], *pads) for n in range(0, count * size, size)]


class Batches:
    """A loader that continues after the batches that a resumed run has seen, and draws no random numbers."""

    def __init__(self, made: list[TrainingBatch]) -> None:
        self.made, self.done = made, 0

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[TrainingBatch]:
        for batch in self.made[self.done :]:
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of batches that were read."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue there."""
        self.done = state["done"]


class Seed(Callback):
    """Seeds right before the fuser is made: distributed strategies seed by themselves, somewhat earlier."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Seed all generators."""
        L.seed_everything(0, verbose=False)


def fit(
    day: Day,
    folder: Path,
    steps: int,
    strategy: Any = "auto",
    resume: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    **choices: Any,
) -> tuple[Weights, Path]:
    """Train for some steps from seed 0; the fuser's weights on the CPU, and a checkpoint."""
    made = module(**choices)
    trainer = L.Trainer(
        **trainer_settings(day),
        max_steps=steps,
        default_root_dir=folder,
        strategy=strategy,
        devices=1,
        plugins=[AtomicCheckpointIO()],
        callbacks=[Seed(), *callbacks],
    )
    trainer.fit(made, Batches(batches(made, 6)), ckpt_path=None if resume is None else str(resume), weights_only=True)
    path = folder / f"step_{steps}.ckpt"
    trainer.save_checkpoint(path)
    fuser = made.model.whole_fuser()
    assert fuser is not None
    return {name: value.detach().cpu().clone() for name, value in fuser.state_dict().items()}, path


def trainer_settings(day: Day) -> dict[str, Any]:
    """A silent trainer on the device."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    accelerator = {"accelerator": "gpu" if day.is_cuda else "cpu", "num_sanity_val_steps": 0, "gradient_clip_val": 1.0}
    return accelerator | dict.fromkeys(off, False)


def largest_difference(ours: Weights, theirs: Weights) -> float:
    """Largest absolute difference of any weight."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


def repeated(day: Day) -> Result:
    """Without this, a resumed run cannot be bit-exact either."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (fit(day, Path(folder) / str(n), 6)[0] for n in range(2))
    return _equal(first, second)


def resumed(day: Day) -> Result:
    """Three steps, a checkpoint, three more; dropout and gate noise are on."""
    with tempfile.TemporaryDirectory() as folder:
        whole, _ = fit(day, Path(folder) / "whole", 6)
        _, path = fit(day, Path(folder) / "begun", 3)
        rest, _ = fit(day, Path(folder) / "rest", 6, resume=path)
    return _equal(whole, rest)


def _equal(ours: Weights, theirs: Weights) -> Result:
    result = {"largest_difference": largest_difference(ours, theirs)}
    if result["largest_difference"]:
        raise Refuted(f"weights differ by up to {result['largest_difference']:.1e}", result)
    return result


def one_process(day: Day, strategy: str) -> Result:
    """A distributed strategy with one process trains the same weights, from a checkpoint on.

    Not from the start: strategies draw the first weights on different devices.
    """
    made = DDPStrategy(gradient_as_bucket_view=True) if strategy == "ddp" else FSDP2Strategy()
    with tempfile.TemporaryDirectory() as folder:
        _, begun = fit(day, Path(folder) / "begun", 2)
        plain, _ = fit(day, Path(folder) / "plain", 5, resume=begun)
        ours, _ = fit(day, Path(folder) / strategy, 5, strategy=made, resume=begun)
    return near(ours, plain)


def near(ours: Weights, theirs: Weights) -> Result:
    """Equal but for rounding: a thousandth of the largest change that three steps of AdamW can make."""
    result = {"largest_difference": largest_difference(ours, theirs), "tolerance": 3e-7}
    if result["largest_difference"] > result["tolerance"]:
        raise Refuted(f"weights differ by up to {result['largest_difference']:.1e}", result)
    return result


class WaitList(Callback):
    """Counts waits for the device in every step but the first two, callbacks and logging included."""

    def __init__(self) -> None:
        self.waits, self.steps, self._stack = Counter[str](), 0, ExitStack()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, number: int) -> None:
        """Begin to count."""
        if number >= 2:
            self._stack.enter_context(listed_waits(self.waits))
            self.steps += 1

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Stop counting."""
        self._stack.close()


def waits_of_a_step(day: Day) -> Result:
    """Lists them; a wait of Lightning's own once in a while is no failure, so nothing is asserted."""
    if not day.is_cuda:
        raise Skipped("there is no GPU to wait for")
    watch = WaitList()
    with tempfile.TemporaryDirectory() as folder:
        fit(day, Path(folder), 6, callbacks=(watch,))
    return {"steps": watch.steps, "waits": dict(watch.waits)}
