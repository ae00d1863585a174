"""Import paths of version 0.1 that still work, with a DeprecationWarning; they go in version 0.3."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "c2c_lightning"

#: Old module to new module, below the package.
MODULES = {
    "alignment.chat": "alignment.chat_tokenizer",
    "alignment.layers": "alignment.layer_alignment",
    "alignment.reading": "alignment.content_spans",
    "alignment.reads": "alignment.fusion_plan",
    "alignment.sections": "alignment.released_chat",
    "alignment.shared": "alignment.common_context",
    "alignment.spans": "alignment.span_alignment",
    "alignment.stretches": "alignment.template_alignment",
    "alignment.templates": "alignment.chat_renderer",
    "alignment.tokens": "alignment.retokenization",
    "analysis.alignment": "analysis.alignment_report",
    "analysis.padding": "analysis.padding_report",
    "baselines": "responders",
    "baselines.c2c": "responders.c2c_responder",
    "baselines.clock": "responders.phase_timer",
    "baselines.factories": "responders.registry",
    "baselines.likelihood": "responders.option_scoring",
    "baselines.routing": "responders.routing",
    "baselines.single": "responders.single_model",
    "baselines.text_to_text": "responders.text_to_text",
    "baselines.views": "responders.question_prompt",
    "baselines.wording": "responders.prompt_texts",
    "baselines.writing": "responders.generated_text",
    "bench": "profiling",
    "bench.answers": "profiling.answer_latency",
    "bench.benchmark": "profiling.benchmark",
    "bench.clock": "profiling.timing",
    "bench.decode": "profiling.decode_latency",
    "bench.flops": "profiling.flops",
    "bench.loading": "profiling.data_loading",
    "bench.machine": "profiling.machine",
    "bench.memory": "profiling.peak_memory",
    "bench.pair": "profiling.model_pair",
    "bench.prefill": "profiling.prefill_latency",
    "bench.results": "profiling.results",
    "bench.shapes": "profiling.shapes",
    "bench.sweep": "profiling.sweep",
    "bench.train_step": "profiling.train_step",
    "bench.workload": "profiling.workload",
    "commands.chat": "commands.terminal_chat",
    "commands.export": "commands.fuser_files",
    "commands.trainer": "commands.trainer_cli",
    "data.assemble": "data.encode_sharers",
    "data.blocks": "data.loading.block_reader",
    "data.buckets": "data.loading.length_buckets",
    "data.conversation": "data.messages",
    "data.endless": "data.loading.stream_loader",
    "data.feed": "data.loading.table_loaders",
    "data.files": "data.readers.files",
    "data.jsonlines": "data.readers.json_lines",
    "data.loader": "data.loading.epoch_loader",
    "data.mixing": "data.loading.mixture_sampling",
    "data.prepare": "data.preprocessing.prepare",
    "data.report": "data.preprocessing.data_report",
    "data.rows": "data.preprocessing.row_encoder",
    "data.sampler": "data.loading.batch_sampler",
    "data.sources.base": "data.sources.source",
    "data.stream": "data.loading.row_stream",
    "data.stream_feed": "data.loading.stream_loaders",
    "data.stream_loader": "data.loading.stream_loader",
    "data.swap": "data.mismatch",
    "data.tokens": "data.preprocessing.tokenized_dataset",
    "evaluation.answers": "evaluation.scoring.extract",
    "evaluation.benchmarks": "evaluation.tasks",
    "evaluation.benchmarks.load": "evaluation.tasks.question_loader",
    "evaluation.benchmarks.question": "evaluation.tasks.benchmark_question",
    "evaluation.benchmarks.registry": "evaluation.tasks.known_tasks",
    "evaluation.benchmarks.rows": "evaluation.tasks.row_parsers",
    "evaluation.benchmarks.spec": "evaluation.tasks.task",
    "evaluation.donors": "evaluation.mismatched",
    "evaluation.entrants": "evaluation.plan",
    "evaluation.exam": "evaluation.runner",
    "evaluation.harness": "evaluation.lm_eval_model",
    "evaluation.judging": "evaluation.scoring.judge",
    "evaluation.longbench": "evaluation.scoring.longbench",
    "evaluation.maths": "evaluation.scoring.maths",
    "evaluation.memory": "evaluation.memory_peak",
    "evaluation.module": "evaluation.evaluation_module",
    "evaluation.plots": "evaluation.report.plots",
    "evaluation.predictions": "evaluation.prediction_log",
    "evaluation.prompts": "evaluation.tasks.prompts",
    "evaluation.publish": "evaluation.report.publish",
    "evaluation.render": "evaluation.report.render",
    "evaluation.run": "evaluation.run_description",
    "evaluation.share": "evaluation.distributed",
    "evaluation.statistics": "analysis.statistics",
    "evaluation.summary": "evaluation.report.aggregate",
    "evaluation.team": "evaluation.load_models",
    "export.checkpoint": "export.from_checkpoint",
    "export.published": "export.released.convert",
    "export.released_complex": "export.released.complex_layout",
    "export.released_description": "export.released.describe",
    "export.released_files": "export.released.projector_files",
    "export.released_layout": "export.released.projector_layout",
    "fuser.block": "ops.residual_mlp",
    "fuser.complex": "fuser.c2c_complex",
    "fuser.complex_config": "fuser.c2c_complex_config",
    "fuser.group": "fuser.kind",
    "fuser.joint_weighting": "fuser.c2c_complex",
    "fuser.layer": "fuser.c2c_kind",
    "fuser.layer_norm": "ops.stacked_norm",
    "fuser.mlp": "fuser.c2c_complex",
    "fuser.projector": "fuser.c2c_kind",
    "fuser.rms_norm": "ops.stacked_norm",
    "fuser.stacked": "ops.stacked_linear",
    "fuser.weighting": "fuser.c2c_kind",
    "kv.packed": "ops.ragged_attention",
    "model.decoding": "model.decode_cache",
    "model.dialogue": "model.chat_session",
    "model.expected": "model.meta_geometry",
    "model.frozen": "model.load_lm",
    "model.head": "ops.chunked_cross_entropy",
    "model.modes": "model.fusion_modes",
    "model.prefix": "model.prefix_match",
    "model.prompting": "model.last_token_cache",
    "model.reading": "model.prefill_state",
    "model.responder": "responders.base",
    "training.asked": "prediction.requests",
    "training.callbacks.access": "training._utils",
    "training.callbacks.closed_form": "training.callbacks.fit_closed_form",
    "training.callbacks.export": "training.callbacks.export_fuser",
    "training.callbacks.gates": "training.callbacks.gate_monitor",
    "training.callbacks.picture": "training.callbacks.run_picture",
    "training.callbacks.progress": "training.callbacks.progress_bar",
    "training.compiling": "training.compile_fuser",
    "training.prediction": "prediction.prediction_module",
    "training.replay": "training.activation_checkpointing",
    "training.trained": "training.train_model",
}

#: Old name to new name.
NAMES = {
    "TableFeed": "TableLoaders",
    "StreamFeed": "StreamLoaders",
    "Part": "StreamPart",
    "ExampleStream": "BatchStream",
    "Delivery": "StreamItem",
    "Asked": "PredictionRequest",
    "Block": "ResidualMLP",
    "C2CGroup": "C2CKind",
    "ChatReader": "ChatTokenizer",
    "ComplexGroup": "ComplexKind",
    "Dialogue": "ChatSession",
    "Entrant": "Participant",
    "Exam": "Runner",
    "Field": "EvaluationPlan",
    "FusionRound": "FusionStep",
    "LayerGroup": "FuserKind",
    "Read": "FusedTokens",
    "ReadRow": "ParsedRow",
    "Share": "UnpaddedDistributedSampler",
    "Team": "ModelBundle",
    "entrants": "build_participants",
    "load_team": "load_bundle",
    "load_teams": "load_bundles",
    "read_asked": "load_requests",
}


class RenamedModuleFinder(MetaPathFinder, Loader):
    """Imports a module by its old path as a proxy of the module that replaced it."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The proxy's spec, or None for a path that never existed."""
        if fullname.removeprefix(f"{PACKAGE}.") not in MODULES:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Let attributes be looked up in the new module."""
        new = f"{PACKAGE}.{MODULES[module.__name__.removeprefix(f'{PACKAGE}.')]}"
        warnings.warn(f"{module.__name__} is now {new}.", DeprecationWarning, stacklevel=6)

        def lookup(name: str) -> Any:
            return getattr(importlib.import_module(new), NAMES.get(name, name))

        module.__getattr__ = lookup  # type: ignore[method-assign]


def install() -> None:
    """Make old paths importable."""
    if not any(isinstance(finder, RenamedModuleFinder) for finder in sys.meta_path):
        # First, since a folder left behind by an upgrade would be found as a namespace package.
        sys.meta_path.insert(0, RenamedModuleFinder())
