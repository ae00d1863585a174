"""One training run as a process of its own, to be killed and resumed: `python resumable_fit.py '{"folder": ...}'`.

Writes a line per batch to `FOLDER/steps-RANK.jsonl` (step, what the batch held, loss to the last bit) and the
weights to `FOLDER/final.pt`. A resumed run appends, so that a step may be there twice.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.encode import Encoder, TokenizerSpec
from c2c_lightning.data.sources import Messages, Mixture, Source
from c2c_lightning.training.callbacks.random_state import RandomState
from c2c_lightning.training.checkpoint import AtomicCheckpointIO, Checkpoint
from tests.tiny import tiny_tokenizer


@dataclass
class Run:
    """What to train and when to die."""

    folder: str
    data: list[str]
    steps: int = 12
    workers: int = 0
    devices: int = 1
    accumulate: int = 1
    save_every: int = 4
    validate_every: int | None = 3
    streaming: bool = False
    mixture: bool = False
    limits: dict[str, int] = field(default_factory=lambda: {"batch_size": 3})
    kill_at_batch: int | None = None
    kill_in_save: int | None = None
    c2c: bool = False

    def start(self) -> list[str]:
        """The command that runs it."""
        return [sys.executable, "-W", "ignore", __file__, json.dumps(asdict(self))]


class Small(L.LightningModule):
    """Everything that a checkpoint has to keep: weights, moments, a schedule, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop, self.out = nn.Embedding(320, 8), nn.Dropout(0.3), nn.Linear(8, 320)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        context = self.embed(batch.prompt.receiver.input_ids).mean(1)
        logits = self.out(self.drop(context))[:, None].expand(-1, batch.response_ids.shape[1], -1)
        return nn.functional.cross_entropy(logits[batch.response_mask], batch.response_ids[batch.response_mask])

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Recorder(Callback):
    """Writes down what was trained on, and dies when told."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        total = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        ids = [batch.prompt.receiver.input_ids, *(s.input_ids for s in batch.prompt.sharers), batch.response_ids]
        held = hashlib.sha256(b"".join(t.numpy().tobytes() for t in ids)).hexdigest()[:16]
        line = {
            "batch": total,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "held": held,
            "loss": float(outputs["loss"]).hex(),
            "rows": sorted(row[row > 2].tolist() for row in batch.response_ids),
        }
        with open(f"{self.run.folder}/steps-{trainer.global_rank}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        if total == self.run.kill_at_batch:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingCheckpointIO(AtomicCheckpointIO):
    """Dies in the middle of writing a checkpoint."""

    def __init__(self, number: int) -> None:
        self.left = number

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            save = torch.save

            def cut(content: Any, file: Any) -> None:
                save(content, file)
                file.truncate(file.tell() // 2)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

            torch.save = cut
        super().save_checkpoint(checkpoint, path, storage_options)


def data_module(run: Run) -> InstructionDataModule:
    """The data of a run."""
    tokenizer = TokenizerSpec(tiny_tokenizer("chatml"))
    encoder = Encoder(tokenizer, [TokenizerSpec(tiny_tokenizer("header"))], "span")
    sources: list[Source] = [Messages(path, streaming=run.streaming) for path in run.data]
    return InstructionDataModule(
        Mixture(sources, [2.0, 1.0][: len(sources)]) if run.mixture else sources,
        validation_share=0.1,
        num_workers=run.workers,
        cache_dir=f"{Path(run.data[0]).parent}/cache",
        encoder=encoder,
        **run.limits,
    )


def module(run: Run) -> L.LightningModule:
    """A minimal module, or the real one over tiny models."""
    if not run.c2c:
        return Small()
    from tests.data.tiny_pair import c2c_module

    return c2c_module(Path(run.data[0]).parent)


def main(run: Run) -> None:
    """Train, from the last checkpoint if there is one."""
    torch.set_num_threads(1)
    folder = Path(run.folder)
    L.seed_everything(7, verbose=False)
    io = DyingCheckpointIO(run.kill_in_save) if run.kill_in_save else AtomicCheckpointIO()
    checkpoint = Checkpoint(
        dirpath=folder, every_n_train_steps=run.save_every, save_top_k=-1, save_last="link", filename="{step}"
    )
    validation = {"val_check_interval": run.validate_every, "check_val_every_n_epoch": None}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=run.devices,
        strategy="ddp" if run.devices > 1 else "auto",
        max_steps=run.steps,
        accumulate_grad_batches=run.accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Recorder(run), RandomState(), checkpoint],
        plugins=[io],
        **(validation if run.validate_every else {"limit_val_batches": 0}),
    )
    model = module(run)
    trainer.fit(model, datamodule=data_module(run), ckpt_path="last", weights_only=True)
    if trainer.is_global_zero:
        torch.save({name: p for name, p in model.state_dict().items()}, folder / "final.pt")


if __name__ == "__main__":
    main(Run(**json.loads(sys.argv[1])))
