"""`lightning analyze scaling`: gain of C2C against the strength of its sharer (paper, Fig. 6)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.commands.fuser_analysis import write_analysis
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.commands.sub_runs import run_step, run_test
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.curves import scaling_figure
from c2c_lightning.evaluation.load_models import describe_fuser
from c2c_lightning.evaluation.sharer_scaling import Scores, question_scores, scaling_point, scaling_table
from c2c_lightning.model.lm_spec import LMSpec

logger = logging.getLogger(__name__)

RESPONDERS = ["receiver", "sharer", "c2c"]


def analyze_scaling(args: Sequence[str]) -> None:
    """Gain of C2C against the strength of its sharer: a fuser is trained and evaluated for each (paper, Fig. 6)."""
    parser = CommandParser(prog="lightning analyze scaling", description=analyze_scaling.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument(
        "--test", type=list[str], required=True, help="configurations of `lightning test`: questions, generation"
    )
    parser.add_argument("--fit", type=list[str] | None, help="configurations of `lightning fit`: receiver, fuser, rows")
    parser.add_argument("--sharers", type=list[LMSpec] | None, help="the sharers; a fuser is trained for each")
    parser.add_argument("--seeds", type=list[int], default=[42], help="seeds of the training")
    parser.add_argument("--fusers", type=list[str] | None, help="trained fusers of one receiver, to evaluate only")
    parser.add_argument("--output_dir", type=str, default="runs/scaling", help="folder of runs, numbers and picture")
    options = parser.options(args)
    runs = _runs(options)
    folder = Path(options.output_dir)
    # Without the sharers: one that is added later leaves the trainings of the others as they are.
    log = MeasurementLog(folder / "scaling.jsonl", {"fit": options.fit})
    scores: dict[str, list[Scores]] = {}
    for number, run in enumerate(runs, start=1):
        logger.info("%s, seed %s (%d of %d)", run.sharer, run.seed, number, len(runs))
        scores.setdefault(run.sharer, []).append(run.scores(options.fit, options.test, folder, log))
    points = sorted((scaling_point(name, found) for name, found in scores.items()), key=lambda point: point.sharer)
    document = {"version": 1, "sharers": [point.to_json() for point in points]}
    write_analysis(folder, "scaling", document, lambda: scaling_figure(points))
    Console().print(scaling_table(points))


@dataclass(frozen=True)
class ScalingRun:
    """One fuser.

    Attributes:
        sharer: name of the sharer.
        seed: of its training; for a fuser that exists its number.
        spec: the sharer, to train from.
        fuser: the fuser that exists.
    """

    sharer: str
    seed: int
    spec: LMSpec | None = None
    fuser: str | None = None

    def scores(self, fit: Sequence[str] | None, test: Sequence[str], folder: Path, log: MeasurementLog) -> Scores:
        """The scores of its questions; what an interrupted analysis has finished is not run again."""
        place = folder / self.sharer.replace("/", "_").replace(":", "_") / f"seed_{self.seed}"
        fuser = self.fuser or self._trained(fit or [], place, log)
        answers = run_test(test, place / "evaluation", {"model.fuser": fuser, "model.responders": RESPONDERS})
        return question_scores(answers)

    def _trained(self, fit: Sequence[str], place: Path, log: MeasurementLog) -> str:
        """The fuser of a training that is finished, continued, or begun."""
        assert self.spec is not None
        run = json.dumps(asdict(self))
        started, finished = f"started {run}", f"finished {run}"
        if finished not in log or not (place / "fuser").is_dir():
            given = asdict(self.spec)
            model = {field.name: given[field.name] for field in fields(LMSpec) if given[field.name] != field.default}
            chosen: dict[str, Any] = {"model.sharers": [model], "seed_everything": self.seed}
            # A checkpoint of other settings must not be continued.
            if started in log and (place / "checkpoints" / "last.ckpt").exists():
                chosen["ckpt_path"] = "last"
            log.add(started, None)
            run_step("fit", fit, {"trainer.default_root_dir": str(place), **chosen})
            log.add(finished, None)
        return str(place / "fuser")


def _runs(options: Namespace) -> list[ScalingRun]:
    """All fusers.

    Raises:
        ConfigurationError: neither sharers to train from nor fusers, or fusers of several receivers.
    """
    if options.fusers:
        if options.sharers or options.fit:
            raise ConfigurationError("give either `fusers`, to evaluate them, or `fit` and `sharers`, to train some.")
        known = [(fuser, describe_fuser(fuser)) for fuser in options.fusers]
        if len({description.receiver.name for _, description in known}) > 1:
            raise ConfigurationError("`fusers` have several receivers: a curve is of one receiver.")
        return [
            ScalingRun(" + ".join(s.name for s in found.sharers), number, fuser=fuser)
            for number, (fuser, found) in enumerate(known)
        ]
    if not (options.fit and options.sharers and options.seeds):
        raise ConfigurationError("nothing is trained: give `fit`, `sharers` and `seeds`, or `fusers` that exist.")
    names = [spec.path for spec in options.sharers]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`sharers` names a model twice: {', '.join(names)}.")
    return [ScalingRun(spec.path, seed, spec) for spec in options.sharers for seed in options.seeds]
