"""The module of `lightning test`: benchmarks over responders, through the Trainer."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.callbacks import TQDMProgressBar

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.benchmark_datamodule import BenchmarkDataModule
from c2c_lightning.evaluation.distributed import QuestionBatch, gather
from c2c_lightning.evaluation.load_models import DType, check_fusers, fuser_fingerprint, load_bundles, load_fused
from c2c_lightning.evaluation.memory_peak import peak_memory
from c2c_lightning.evaluation.plan import DEFAULT_RESPONDERS, ControlName, EvaluationPlan, build_participants
from c2c_lightning.evaluation.prediction_log import Prediction, PredictionLog
from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.publish import publish
from c2c_lightning.evaluation.report.terminal import show
from c2c_lightning.evaluation.run_description import describe, describe_benchmark, fingerprint
from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.export.fuser_tensors import precision_free_checksum
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.responder_factory import ModelBundle, ResponderFactory
from c2c_lightning.training.callbacks.progress_bar import FitProgressBar

logger = logging.getLogger(__name__)


class EvaluationModule(LightningModule):
    """Runs responders and controls on benchmarks and writes the report.

    Args:
        output_dir: folder of `report.json`, `report.md`, `predictions.jsonl` and plots; default the run folder
            (`trainer.default_root_dir`).
        fuser: fuser directory, fuser on the hub or Lightning checkpoint; several (seeds, checkpoints of one pair) give
            mean and spread; None if no responder needs a fuser.
        receiver: the receiver; default the one in the fuser's configuration.
        sharers: likewise, one for each sharer.
        self_fuser: fuser from the receiver to itself, for the control `self`.
        responders: by name (receiver, receiver:document, receiver:no_document, sharer, sharer:no_document, t2t,
            t2t:answer, routing, c2c, t-c2c) or class_path (`Lora`, `Tuned`, `MismatchTrained` of
            `c2c_lightning.responders.registry`, each with its `path`).
        controls: mismatched, shuffled, zero, noise, self, gates_closed; default mismatched and gates_closed wherever
            the responder c2c runs, `[]` for none.
        mismatched_draws: number of donors for each question.
        max_new_tokens: limit of an answer, in tokens, for benchmarks without one (paper: 64).
        generate: further arguments of transformers' `generate`, such as `do_sample`.
        seed: of sampled answers.
        dtype: type of the language models' weights; default that of their checkpoints.
        measure_latency: whether phases are timed exactly, by synchronising the device; always at batch size 1.
        plots: whether to draw plots, where matplotlib is installed.
    """

    def __init__(
        self,
        output_dir: str | None = None,
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
        self.given_output_dir, self.plots = output_dir, plots
        self.fuser, self.fusers = fuser, [fuser] if isinstance(fuser, str) else list(fuser or [])
        self.receiver, self.sharers, self.self_fuser = receiver, sharers, self_fuser
        responders = list(DEFAULT_RESPONDERS) if responders is None else responders
        self.plan = EvaluationPlan(responders, controls, mismatched_draws, measure_latency)
        # Greedy as in the paper, although generation configs of models often sample.
        if max_new_tokens < 1:
            raise BenchmarkError(f"`model.max_new_tokens` is {max_new_tokens}, but an answer needs at least 1 token.")
        self.generate_kwargs = {"max_new_tokens": max_new_tokens, "do_sample": False, **(generate or {})}
        self.seed, self.lm_dtype = seed, dtype
        self.report: dict[str, Any] = {}
        self._bundles: list[ModelBundle] = []
        self._peak_memory = 0
        self._scores: dict[tuple[str, str], list[float]] = defaultdict(list)

    @property
    def output_dir(self) -> Path:
        """The folder of the report."""
        return Path(self.trainer.default_root_dir if self.given_output_dir is None else self.given_output_dir)

    @property
    def data(self) -> BenchmarkDataModule:
        """The data module."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return data  # type: ignore[no-any-return]

    def setup(self, stage: str) -> None:
        """Check the configuration before a model is loaded."""
        # The paper times single questions (table 3), so synchronisation costs no batching there.
        if self.data.batch_size == 1:
            self.plan = replace(self.plan, measure_latency=True)
        benchmarks = self.data.benchmarks
        self.plan.check([benchmark for benchmark, _ in benchmarks], bool(self.fusers), self.self_fuser is not None)
        check_fusers(self.fusers, self.self_fuser, self.receiver, self.sharers)
        self.runners = {b.name: Runner(b, questions, self.generate_kwargs, self.seed) for b, questions in benchmarks}

    def configure_model(self) -> None:
        """Load the models, once: Lightning calls this hook again for each stage."""
        if self._bundles:
            return
        device = self.trainer.strategy.root_device
        self._bundles = load_bundles(self.fusers, self.receiver, self.sharers, self.lm_dtype, device)
        receiver, self_fuser = self._bundles[0].receiver, self.self_fuser
        self_c2c = None if self_fuser is None else load_fused(self_fuser, receiver, [receiver], device=device)
        self.participants = {
            name: build_participants(self.plan, self._bundles, runner.benchmark, runner.questions, self_c2c)
            for name, runner in self.runners.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse `ckpt_path`: an evaluation has no state of its own."""
        raise BenchmarkError("an evaluation has no checkpoint: pass the checkpoint as `fuser` instead of `ckpt_path`.")

    def on_test_start(self) -> None:
        """Read the answers of an interrupted run."""
        self.log_file = PredictionLog(self.output_dir, self.global_rank)
        # One process cleans the folder before any of them reads it.
        if self.trainer.is_global_zero:
            self.log_file.start(fingerprint(list(self.runners.values()), self._settings()), self._settings())
        self.trainer.strategy.barrier("evaluation started")
        answered = self.log_file.read()
        self._answered = {prediction.key for prediction in answered}
        self._count(answered)
        if answered:
            logger.info("resuming after %d answers in %s", len(answered), self.output_dir)

    def _settings(self) -> dict[str, Any]:
        """The configuration that answers and their times depend on."""
        return {
            "fuser": self.fuser,
            "fuser_content": [fuser_fingerprint(fuser) for fuser in self.fusers],
            "self_fuser_content": fuser_fingerprint(self.self_fuser),
            "receiver": self.receiver and asdict(self.receiver),
            "sharers": self.sharers and [asdict(sharer) for sharer in self.sharers],
            "responders": [repr(factory) for factory in self.plan.factories()],
            "responder_content": [fuser_fingerprint(path) for f in self.plan.factories() for path in f.files],
            "controls": list(self.plan.control_names),
            "mismatched_draws": self.plan.mismatched_draws,
            "generate": self.generate_kwargs,
            "seed": self.seed,
            "dtype": self.lm_dtype,
            "batch_size": self.data.batch_size,
            "measure_latency": self.plan.measure_latency,
        }

    def test_step(self, batch: QuestionBatch, batch_idx: int) -> None:
        """Let all responders answer a batch of questions."""
        runner = self.runners[batch.benchmark]
        for participant in self.participants[batch.benchmark]:
            questions = [q for q in batch.questions if runner.key(participant, q) not in self._answered]
            if questions:
                predictions = runner.run(participant, questions)
                # At once: an interruption costs one batch.
                self.log_file.append(predictions)
                self._count(predictions)
        for bundle in self._bundles:
            if bundle.c2c is not None:
                bundle.last_prefill.clear()
        self._show_running_accuracy(batch.benchmark)

    def _count(self, predictions: Iterable[Prediction]) -> None:
        for prediction in predictions:
            self._peak_memory = max(self._peak_memory, prediction.peak_memory or 0)
            self._scores[prediction.benchmark, prediction.responder].append(prediction.score)

    def _show_running_accuracy(self, benchmark: str) -> None:
        """Show the accuracy so far of each responder next to the progress bar."""
        means = [(who, sum(s) / len(s)) for (name, who), s in self._scores.items() if name == benchmark]
        text = " ".join(f"{who} {mean:.1%}" for who, mean in means)
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.test_progress_bar.set_postfix_str(text, refresh=False)
        if isinstance(bar, FitProgressBar):
            # One line has room for two.
            main = [mean for mean in means if mean[0] in ("receiver", "c2c")] or means[:2]
            bar.show(" ".join(f"{who} {mean:.1%}" for who, mean in main))

    def on_test_epoch_end(self) -> None:
        """Join the answers of all processes and write the report."""
        # A collective operation: before any process returns.
        gathered = gather(self.log_file.read(), self.trainer.world_size)
        if not self.trainer.is_global_zero:
            return
        order = [key for name, runner in self.runners.items() for key in runner.keys(self.participants[name])]
        predictions = self.log_file.join(order, gathered)
        if missing := len(order) - len(predictions):
            logger.warning("%d of %d answers are missing (limit_test_batches)", missing, len(order))
        known = {name: describe_benchmark(runner) for name, runner in self.runners.items()}
        memory = max(self._peak_memory, peak_memory())
        run = describe(self._settings(), self.trainer.strategy.root_device, memory, self._bundles[0].c2c)
        run["fuser_checksums"] = [precision_free_checksum(fused.fuser.state_dict()) for fused in self._fused_models()]
        self.report = build_report(predictions, known, run)
        publish(self.report, self.output_dir, self.trainer.loggers, with_plots=self.plots)

    def _fused_models(self) -> list[C2CModel]:
        return [bundle.c2c for bundle in self._bundles if bundle.c2c is not None]

    def teardown(self, stage: str) -> None:
        """Show the report, after the progress bar has ended."""
        if self.report:
            show(self.report)
            logger.info("report written to %s", self.output_dir / "report.json")
