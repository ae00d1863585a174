"""Data loading alone: whether it could ever keep a training step waiting."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.model_pair import FIRST_WORD
from c2c_lightning.profiling.timing import Times, median_ratio
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload, real_tokens


@dataclass(frozen=True)
class DataLoading:
    """Times the data module of `lightning fit` on conversations in a file, and the training step for comparison.

    Reading and encoding happen once for a data set and are timed apart; then each epoch only reads and pads.

    Attributes:
        workload: how long the conversations are, and how many make a batch.
        steps: training steps after each epoch of loading.
        num_workers: processes that read and pad batches.
        rounds: how often both are timed.
    """

    workload: Workload = field(default_factory=lambda: Workload(num_samples=1024))
    steps: int = 6
    num_workers: int = 0
    rounds: int = 3
    name: str = "loading"

    def run(self, bench: BenchContext) -> Result:
        """Time both alternately."""
        model, preparing, loading, training = bench.build(), Times(), Times(), Times()
        trainer, done = Trainer(model), bench.progress(self.rounds)
        with self._data(model) as data:
            preparing.measure(data.prepare)
            batches = list(data.train_dataloader())
            # Evenly over the epoch, so that they are as long as the others.
            few = batches[:: max(1, len(batches) // self.steps)][: self.steps]
            moved = [batch.to(bench.device) for batch in few]
            trainer.step(moved[0])
            for _ in range(self.rounds):
                loading.measure(lambda: consume(data.train_dataloader()))
                training.measure(partial(trainer.steps, moved))
                done()
        tokens, trained = real_tokens(batches), real_tokens(few)
        return {
            "conversations": self.workload.num_samples,
            "tokens": tokens,
            "encoding_tokens_per_second": tokens / preparing.seconds,
            "loading_tokens_per_second": tokens / loading.seconds,
            "training_tokens_per_second": trained / training.seconds,
            "ratio": tokens / trained * median_ratio(training.wall, loading.wall),
            "ratio_by_cpu_time": tokens / trained * median_ratio(training.cpu, loading.cpu),
            "num_workers": self.num_workers,
            "rounds": self.rounds,
        }

    @contextmanager
    def _data(self, model: C2CModel) -> Iterator[InstructionDataModule]:
        """The data module over conversations in a temporary folder."""
        with TemporaryDirectory() as name:
            rows = Path(name) / "conversations.jsonl"
            rows.write_text("".join(f"{line}\n" for line in self._lines(model)))
            yield InstructionDataModule(
                Messages(str(rows)),
                validation_share=0.0,
                batch_size=self.workload.batch_size,
                num_workers=self.num_workers,
                cache_dir=f"{name}/cache",
                encoder=model.encoder,
            )

    def _lines(self, model: C2CModel) -> Iterator[str]:
        lengths, random = self.workload.lengths(), np.random.default_rng(self.workload.seed)
        vocab, tokenizer = smallest_vocabulary(model), model.receiver.tokenizer

        def text(tokens: int) -> str:
            return str(tokenizer.decode(random.integers(FIRST_WORD, vocab, tokens).tolist()))

        for (prompt,), response in zip(lengths.prompts.tolist(), lengths.responses.tolist(), strict=True):
            turns = {"user": text(prompt), "assistant": text(response)}
            yield json.dumps({"messages": [{"role": role, "content": said} for role, said in turns.items()]})


def consume(batches: Iterable[TrainingBatch]) -> None:
    """Make every batch of a loader."""
    for _ in batches:
        pass
