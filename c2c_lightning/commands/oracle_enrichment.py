"""`lightning oracle enrichment`: accuracy on caches that were computed behind shots (paper, Eq. 2 and Fig. 4)."""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import track

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.commands.fuser_analysis import write_analysis
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.oracle.cache_answers import CacheReader
from c2c_lightning.evaluation.oracle.cache_store import QuestionCacheStore
from c2c_lightning.evaluation.oracle.enrichment_figure import enrichment_figure
from c2c_lightning.evaluation.oracle.enrichment_report import EnrichmentResults
from c2c_lightning.evaluation.oracle.enrichment_run import EnrichmentRun
from c2c_lightning.evaluation.oracle.enrichment_tables import enrichment_tables
from c2c_lightning.evaluation.oracle.shot_prompt import (
    TEMPLATES,
    OptionScoring,
    PromptEncoder,
    ShotQuestion,
    ShotTemplate,
)
from c2c_lightning.evaluation.oracle.shot_questions import encode_questions
from c2c_lightning.evaluation.oracle.shots import Shots, choose_shots, without_shots
from c2c_lightning.evaluation.tasks import Question, Task, load_questions
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen


def run_enrichment(args: Sequence[str]) -> None:
    """Accuracy without shots, with shots, and on caches computed behind shots whose entries are deleted (Eq. 2)."""
    options = _parser().options(args)
    _check(options)
    questions, shots = _questions_and_shots(options)
    lm = load_frozen(options.model)
    template = options.template or TEMPLATES[options.scoring]
    encoder = PromptEncoder(lm.tokenizer, template, options.scoring, options.double_cue)
    asked = encode_questions(lm, encoder, questions, shots)
    run = EnrichmentRun(
        CacheReader(lm, options.scoring),
        asked,
        QuestionCacheStore(int(options.cache_gib * 2**30)),
        options.batch_size,
        min(options.max_selected, lm.geometry.num_layers),
        options.seed,
    )
    results = _run(run, options, template)
    document = {**results.to_json(), "run": _description(run, options, template)}
    write_analysis(Path(options.output_dir), "enrichment", document, lambda: enrichment_figure(document))
    # A pipe has no width of its own, and a narrow terminal must not cut numbers.
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in enrichment_tables(document):
        console.print(table)


OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "data_folder": (str | None, None, "base of relative paths of questions and shots"),
    "num_shots": (int, 5, "shots of a subject (released: 5)"),
    "min_shots": (int | None, None, "enough for a subject that has fewer; default `num_shots`"),
    "shot_seed": (int | None, None, "sample the shots by this seed; default the first rows of a subject, as released"),
    "scoring": (OptionScoring, "letter", "whether the options are letters or the choices' texts"),
    "template": (ShotTemplate | None, None, "texts around questions and answers; default Text 4 of the paper"),
    "double_cue": (bool, False, "write `Answer:` twice in shots, as the released code does"),
    "max_selected": (int, 10, "largest number of best and of worst layers"),
    "seed": (int, 0, "of the halves on which layers are chosen"),
    "batch_size": (int, 8, "questions that are prefilled together"),
    "cache_gib": (float, 2.0, "memory for caches between the two stages; those beyond it are computed again"),
    "output_dir": (str, "runs/enrichment", "where numbers and picture go"),
}
"""Type, default and purpose of the options that are not required."""


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning oracle enrichment", description=run_enrichment.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument("--model", type=LMSpec, required=True, help="the language model")
    parser.add_argument("--questions", type=Task, required=True, help="multiple choice, as in `lightning test`")
    parser.add_argument("--shots", type=Task, required=True, help="rows whose first ones of each subject are its shots")
    for name, (kind, default, purpose) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=purpose)
    return parser


def _check(options: Namespace) -> None:
    for name in ("num_shots", "max_selected", "batch_size"):
        if options[name] < 1:
            raise ConfigurationError(f"`{name}` is {options[name]}, but must be at least 1.")


def _questions_and_shots(options: Namespace) -> tuple[list[Question], Shots]:
    questions = load_questions(options.questions, options.data_folder)
    candidates = load_questions(options.shots, options.data_folder)
    subjects = [question.subject for question in questions]
    shots = choose_shots(candidates, subjects, options.num_shots, options.min_shots, options.shot_seed)
    return without_shots(questions, shots), shots


def _run(run: EnrichmentRun, options: Namespace, template: ShotTemplate) -> EnrichmentResults:
    """Both stages, with a progress bar each; answers of an interrupted run are kept."""
    folder, settings = Path(options.output_dir), _settings(run, options, template)
    single = MeasurementLog(folder / "single_layers.jsonl", settings)
    of_selection = {**settings, "seed": run.seed, "num_selected": run.num_selected}
    selected = MeasurementLog(folder / "selected_layers.jsonl", of_selection)
    _progress("single layers", run.answer_single_layers(single), run.questions, single)
    _progress("best and worst layers", run.answer_selected_layers(single, selected), run.questions, selected)
    return EnrichmentResults(run, single, selected)


def _progress(title: str, steps: Iterator[None], questions: Sequence[ShotQuestion], log: MeasurementLog) -> None:
    done = sum(asked.key in log for asked in questions)
    for _ in track(steps, title, len(questions), completed=done, console=ERROR_CONSOLE, transient=True):
        pass


def _settings(run: EnrichmentRun, options: Namespace, template: ShotTemplate) -> dict[str, Any]:
    """All that an answer depends on."""
    content = json.dumps([[asked.key, asdict(asked.parts), asked.question.right] for asked in run.questions])
    lm: FrozenLM = run.reader.lm
    return {
        "model": asdict(lm.spec),
        "dtype": str(lm.model.dtype),
        "scoring": options.scoring,
        "template": asdict(template),
        "prompts": hashlib.sha256(content.encode()).hexdigest(),
    }


def _description(run: EnrichmentRun, options: Namespace, template: ShotTemplate) -> dict[str, Any]:
    """The `run` section of the report."""
    names = ("num_shots", "min_shots", "shot_seed", "double_cue", "seed")
    return {
        **_settings(run, options, template),
        **{name: options[name] for name in names},
        "questions": options.questions.name,
        "shots": options.shots.name,
        "subjects": len({asked.question.subject for asked in run.questions}),
    }
