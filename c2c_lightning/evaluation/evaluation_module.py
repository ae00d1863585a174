"""`lightning test`: benchmarks over responders through the Trainer."""

import logging
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import DataLoader

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.distributed import Batches, QuestionBatch, UnpaddedDistributedSampler, batches_of, gather
from c2c_lightning.evaluation.load_models import DType, check_fusers, fuser_fingerprint, load_bundles, load_fused
from c2c_lightning.evaluation.memory_peak import peak_memory
from c2c_lightning.evaluation.plan import ControlName, Field, Participant, entrants
from c2c_lightning.evaluation.prediction_log import PredictionLog
from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.publish import publish
from c2c_lightning.evaluation.report.render import show
from c2c_lightning.evaluation.run_description import describe, describe_benchmark, fingerprint
from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.evaluation.scoring.maths import require_math_verify
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.model.frozen_lm import LMSpec
from c2c_lightning.responders.registry import ModelBundle, ResponderFactory

logger = logging.getLogger(__name__)


class BenchmarkDataModule(LightningDataModule):
    """Questions of benchmarks, in batches of one benchmark and like length.

    Args:
        benchmarks: names of the registry with what differs, or benchmarks of your own.
        batch_size: questions that are answered together.
        data_folder: where relative paths of local files begin; default the working directory.
    """

    def __init__(self, benchmarks: list[Task], batch_size: int = 16, data_folder: str | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise BenchmarkError(f"batch_size is {batch_size}, but must be at least 1.")
        self.given, self.batch_size, self.data_folder = benchmarks, batch_size, data_folder
        self.exams: list[tuple[Task, list[Any]]] = []

    def setup(self, stage: str | None = None) -> None:
        """Read all questions; whatever is wrong with them is said here, before a model is loaded.

        Raises:
            BenchmarkError: a benchmark that is unknown, doubled, malformed or empty.
        """
        if self.exams:
            return
        resolved = [resolve(benchmark) for benchmark in self.given]
        names = [benchmark.name for benchmark in resolved]
        if not names or len(set(names)) < len(names):
            raise BenchmarkError(f"benchmarks need names of their own, at least one: {names}.")
        if any(benchmark.scoring == "maths" for benchmark in resolved):
            require_math_verify()
        self.exams = [(benchmark, load_questions(benchmark, self.data_folder)) for benchmark in resolved]

    def test_dataloader(self) -> DataLoader[QuestionBatch]:
        """This process's share of the batches."""
        batches = Batches([b for benchmark, qs in self.exams for b in batches_of(benchmark, qs, self.batch_size)])
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(batches, batch_size=None, sampler=UnpaddedDistributedSampler(batches, rank, world))

    def transfer_batch_to_device(
        self, batch: QuestionBatch, device: torch.device, dataloader_idx: int
    ) -> QuestionBatch:
        """Questions are text and have no device."""
        return batch


class EvaluationModule(LightningModule):
    """Puts questions to responders and controls, and writes the report.

    Args:
        output_dir: gets `report.json`, `report.md`, `predictions.jsonl` and plots.
        fuser: fuser directory, fuser on the hub or Lightning checkpoint; several (seeds, checkpoints of one pair) give
            mean and spread; None if only single models and text take part.
        receiver: the receiver; default the one that the fuser names.
        sharers: likewise, one for each sharer.
        self_fuser: fuser from the receiver to itself, for the control `self`.
        responders: by name (receiver, sharer, t2t, t2t:answer, routing, c2c, t-c2c) or by class_path.
        controls: mismatched, shuffled, zero, noise, self, gates_closed.
        mismatched_draws: how many donors each question gets.
        max_new_tokens: limit of an answer, where a benchmark has none of its own (the paper's is 64).
        generate: further arguments of transformers' `generate`, such as `do_sample`.
        seed: of sampled answers.
        dtype: type of the language models' weights; default as in their checkpoints.
        measure_latency: times phases exactly (the device is waited for); always so at batch size 1.
        plots: draws pictures if matplotlib is there.
    """

    def __init__(
        self,
        output_dir: str,
        fuser: str | list[str] | None = None,
        receiver: LMSpec | None = None,
        sharers: list[LMSpec] | None = None,
        self_fuser: str | None = None,
        responders: list[str | ResponderFactory] | None = None,
        controls: list[ControlName] | None = None,
        mismatched_draws: int = 1,
        max_new_tokens: int = 64,
        generate: dict[str, Any] | None = None,
        seed: int = 0,
        dtype: DType | None = None,
        measure_latency: bool = False,
        plots: bool = True,
    ) -> None:
        super().__init__()
        self.output_dir, self.plots = Path(output_dir), plots
        self.fuser, self.receiver, self.sharers, self.self_fuser = fuser, receiver, sharers, self_fuser
        self.responders, self.controls = responders or ["receiver", "sharer", "t2t", "routing", "c2c"], controls or []
        self.mismatched_draws, self.measure_latency, self.lm_dtype = mismatched_draws, measure_latency, dtype
        self.generate_kwargs = {"max_new_tokens": max_new_tokens, "do_sample": False, **(generate or {})}
        self.seed = seed
        self.report: dict[str, Any] = {}
        self._teams: list[ModelBundle] = []
        self._peak_memory = 0
        self._right: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])

    @property
    def data(self) -> BenchmarkDataModule:
        """The questions."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return data  # type: ignore[no-any-return]

    @property
    def fusers(self) -> list[str]:
        """The fusers, of which there may be none, one or several."""
        return [self.fuser] if isinstance(self.fuser, str) else list(self.fuser or [])

    def setup(self, stage: str) -> None:
        """Refuse what cannot be, before a model is loaded."""
        exact = self.measure_latency or self.data.batch_size == 1
        self.field = Field(self.responders, self.controls, self.mismatched_draws, exact)
        exams = self.data.exams
        self.field.check([b for b, _ in exams], bool(self.fusers), self.self_fuser is not None)
        check_fusers(self.fusers, self.self_fuser, self.receiver, self.sharers)
        self.exams = {benchmark.name: Runner(benchmark, qs, self.generate_kwargs, self.seed) for benchmark, qs in exams}

    def configure_model(self) -> None:
        """Load the models; does nothing the second time."""
        if self._teams:
            return
        device = self.trainer.strategy.root_device
        self._teams = load_bundles(self.fusers, self.receiver, self.sharers, self.lm_dtype, device)
        receiver, self_fuser = self._teams[0].receiver, self.self_fuser
        itself = None if self_fuser is None else load_fused(self_fuser, receiver, [receiver], device=device)
        self.entrants: dict[str, list[Participant]] = {
            name: entrants(self.field, self._teams, exam.benchmark, exam.questions, itself)
            for name, exam in self.exams.items()
        }

    def on_test_start(self) -> None:
        """Find what an earlier, cut off run has answered already."""
        self.log_file = PredictionLog(self.output_dir, self.global_rank)
        if self.trainer.is_global_zero:
            self.log_file.start(fingerprint(list(self.exams.values()), self._settings()), self._settings())
        self.trainer.strategy.barrier("evaluation started")
        answered = self.log_file.read()
        self._answered = {prediction.key for prediction in answered}
        self._count(answered)
        if answered:
            logger.info("going on after %d answers in %s", len(answered), self.output_dir)

    def _settings(self) -> dict[str, Any]:
        """The choices that answers and their times depend on."""
        return {
            "fuser": self.fuser,
            "fuser_content": [fuser_fingerprint(fuser) for fuser in self.fusers],
            "self_fuser_content": fuser_fingerprint(self.self_fuser),
            "receiver": self.receiver and asdict(self.receiver),
            "sharers": self.sharers and [asdict(sharer) for sharer in self.sharers],
            "responders": [repr(factory) for factory in self.field.factories()],
            "controls": list(self.controls),
            "mismatched_draws": self.mismatched_draws,
            "generate": self.generate_kwargs,
            "seed": self.seed,
            "dtype": self.lm_dtype,
            "batch_size": self.data.batch_size,
            "measure_latency": self.field.measure_latency,
        }

    def test_step(self, batch: QuestionBatch, batch_idx: int) -> None:
        """All responders answer a batch of questions."""
        exam = self.exams[batch.benchmark]
        for entrant in self.entrants[batch.benchmark]:
            questions = [q for q in batch.questions if exam.key(entrant, q) not in self._answered]
            if questions:
                predictions = exam.ask(entrant, questions)
                self.log_file.append(predictions)
                self._count(predictions)
        self._show_running(batch.benchmark)

    def _count(self, predictions: Any) -> None:
        for prediction in predictions:
            self._peak_memory = max(self._peak_memory, prediction.peak_memory or 0)
            right = self._right[prediction.benchmark, prediction.responder]
            right[0] += prediction.score
            right[1] += 1

    def _show_running(self, benchmark: str) -> None:
        """Running accuracy of each responder beside the progress bar."""
        tallies = [(who, right / n) for (name, who), (right, n) in self._right.items() if name == benchmark and n]
        text = " ".join(f"{who} {share:.1%}" for who, share in tallies)
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.test_progress_bar.set_postfix_str(text, refresh=False)
        if isinstance(bar, RichProgressBar) and bar.progress is not None and bar.test_progress_bar_id is not None:
            bar.progress.update(bar.test_progress_bar_id, description=text)

    def on_test_epoch_end(self) -> None:
        """Join the answers of all processes and write the report."""
        gathered = gather(self.log_file.read(), self.trainer.world_size)
        if not self.trainer.is_global_zero:
            return
        order = [key for name, exam in self.exams.items() for key in exam.keys(self.entrants[name])]
        predictions = self.log_file.join(order, gathered)
        if len(predictions) < len(order):
            logger.warning("only %d of %d questions were put (limit_test_batches)", len(predictions), len(order))
        known = {name: describe_benchmark(exam) for name, exam in self.exams.items()}
        run = describe(self._settings(), self.trainer.strategy.root_device, max(self._peak_memory, peak_memory()))
        self.report = build_report(predictions, known, run)
        publish(self.report, self.output_dir, self.trainer.loggers, with_plots=self.plots)

    def teardown(self, stage: str) -> None:
        """Show the report, once the progress bar is gone."""
        if self.report:
            show(self.report)
            logger.info("report written to %s", self.output_dir / "report.json")
