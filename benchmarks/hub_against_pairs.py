"""A hub of the three embedded peers against a fuser for each direction, trained the same way, on held-out facts.

    python -m benchmarks.hub_against_pairs [--seeds 42 1 2] [--parts hub pairs left_out joined] [--out FOLDER]

- `hub`: all six directions trained jointly by `lightning fuser-hub fit --config quickstart_hub`.
- `pairs`: six fusers of kind `c2c`, each by `lightning fit` with the settings of that configuration.
- `left_out`: the hub without one direction, which is measured.
- `joined`: a hub of the first two peers, which the third one joins with the rest frozen.

Every direction is measured on the held-out facts that its sharer alone knows (`quickstart_hub_test`), with the control
`mismatched`. Finished runs are not repeated.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from c2c_lightning.cli import main as lightning
from c2c_lightning.commands.hub_evaluation import RESULT
from c2c_lightning.fuser.direction import all_directions

CONFIGS = Path(__file__).parents[1] / "configs" / "fuser-hub"
FIT, TEST = CONFIGS / "quickstart_hub.yaml", CONFIGS / "quickstart_hub_test.yaml"
LEFT_OUT = "first_to_second"
ROWS = ("c2c", "c2c:mismatched", "receiver", "sharer")

Accuracies = dict[str, dict[str, float]]
"""By direction and responder."""


@dataclass(frozen=True)
class Comparison:
    """The runs of one seed.

    Attributes:
        folder: where they are kept.
        seed: of training.
        steps: optimizer steps of every training; None for those of the configuration.
    """

    folder: Path
    seed: int
    steps: int | None = None

    def hub(self) -> Accuracies:
        """All directions of the hub."""
        self._fit_hub("hub", self._config())
        return self._measure("hub")

    def left_out(self) -> Accuracies:
        """The direction that was left out, in a hub of the others."""
        config = self._config()
        config["model"]["directions"] = [str(d) for d in all_directions(list(config["model"]["models"]))]
        config["model"]["directions"].remove(LEFT_OUT)
        self._fit_hub("left_out", config)
        return {LEFT_OUT: self._measure("left_out")[LEFT_OUT]}

    def joined(self) -> Accuracies:
        """The directions from and to the last model, which joined a hub of the others."""
        old, new = self._config(), self._config()
        names = list(old["model"]["models"])
        for config, kept in ((old, names[:-1]), (new, names[-1:])):
            config["model"]["models"] = {name: config["model"]["models"][name] for name in kept}
        self._fit_hub("two", old)
        new["model"]["hub"] = str(self.folder / "two" / "hub")
        self._fit_hub("joined", new)
        return {name: rows for name, rows in self._measure("joined").items() if names[-1] in name.split("_to_")}

    def pairs(self) -> Accuracies:
        """One fuser for each direction."""
        directions = all_directions(list(self._config()["model"]["models"]))
        return {str(one): self._pair(one.sharer, one.receiver) for one in directions}

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(FIT.read_text("utf-8"))
        if self.steps is not None:
            config["trainer"] |= {"max_steps": self.steps, "val_check_interval": self.steps}
            config["model"]["fuser"]["anneal_steps"] = self.steps
        return config

    def _fit_hub(self, name: str, config: dict[str, Any]) -> None:
        if not (self.folder / name / "hub").is_dir():
            lightning(["fuser-hub", "fit", "--config", self._write(name, config), "--seed_everything", str(self.seed)])

    def _measure(self, name: str) -> Accuracies:
        folder = self.folder / name
        if not (folder / "test" / RESULT).is_file():
            options = ["--config", str(TEST), "--output_dir", str(folder / "test")]
            lightning(["fuser-hub", "test", "--hub", str(folder / "hub"), *options])
        results = json.loads((folder / "test" / RESULT).read_text("utf-8"))["directions"]
        return {result["direction"]: result["accuracy"] for result in results}

    def _pair(self, sharer: str, receiver: str) -> dict[str, float]:
        config = self._config()
        models, name = config["model"].pop("models"), f"{sharer}_to_{receiver}"
        fuser = {key: value for key, value in config["model"].pop("fuser").items() if key not in ("kind", "options")}
        config["model"] |= {"receiver": models[receiver], "sharers": [models[sharer]], "fuser": fuser}
        config["data"] |= {part: config["data"][part][sharer] for part in ("train", "validation")}
        folder = self.folder / "pairs" / name
        if not (folder / "report.json").is_file():
            written = self._write(f"pairs/{name}", config)
            lightning(["fit", "--config", written, "--seed_everything", str(self.seed)])
            test = folder / "test.yaml"
            test.write_text(TEST.read_text("utf-8").replace("{sharer}", sharer), "utf-8")
            options = ["--model.fuser", str(folder / "fuser"), "--model.output_dir", str(folder)]
            lightning(["test", "--config", str(test), *options, "--trainer.default_root_dir", str(folder)])
        report = json.loads((folder / "report.json").read_text("utf-8"))["benchmarks"]["facts"]["responders"]
        return {row: responder["accuracy"] for row, responder in report.items()}

    def _write(self, name: str, config: dict[str, Any]) -> str:
        """A configuration whose run folder is that of the run; returns its file."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        config["trainer"]["default_root_dir"] = str(folder)
        (folder / "run.yaml").write_text(yaml.safe_dump(config), "utf-8")
        return str(folder / "run.yaml")


PARTS = {"hub": Comparison.hub, "pairs": Comparison.pairs, "left_out": Comparison.left_out, "joined": Comparison.joined}


def main(args: Sequence[str] | None = None) -> int:
    """Run the comparison; `args` default to those of the process. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], help="of training")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="runs of each seed")
    parser.add_argument("--steps", type=int, help="optimizer steps of every training; default as configured")
    parser.add_argument("--out", type=Path, default=Path("runs/hub_against_pairs"), help="folder")
    options = parser.parse_args(args)
    results: dict[str, list[Accuracies]] = {}
    for seed in options.seeds:
        run = Comparison(options.out / str(seed), seed, options.steps)
        for part in options.parts:
            results.setdefault(part, []).append(PARTS[part](run))
            (options.out / "comparison.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    Console().print(table(results))
    return 0


def table(results: dict[str, list[Accuracies]]) -> Table:
    """Accuracies of each part and direction, the means over the seeds, and the mean over the directions."""
    shown = Table("part", "direction", "seeds", *ROWS)
    for part, runs in results.items():
        for direction in [*runs[0], "mean"]:
            cells = []
            for row in ROWS:
                chosen = [run[one][row] for run in runs for one in run if direction in (one, "mean")]
                cells.append(f"{statistics.mean(chosen):.1%}")
            shown.add_row(part, direction, str(len(runs)), *cells)
    return shown


if __name__ == "__main__":
    sys.exit(main())
