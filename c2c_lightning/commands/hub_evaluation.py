"""`lightning fuser-hub test`: one evaluation for every direction of a hub."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from rich.console import Console
from rich.table import Table

from c2c_lightning.commands.sub_runs import run_step
from c2c_lightning.export.hub_directory import SavedHub
from c2c_lightning.fuser.direction import Direction, all_directions

logger = logging.getLogger(__name__)

RESULT = "directions.json"


@dataclass(frozen=True)
class HubEvaluation:
    """The evaluation of a hub.

    Attributes:
        hub: the hub.
        config: configuration of `lightning test`, with `{sharer}` and `{receiver}` for the names of the models.
        output_dir: folder of the results; each direction has a folder with its fuser and its report.
    """

    hub: SavedHub
    config: Path
    output_dir: Path

    def run(self) -> None:
        """Measure every direction whose sharer has an encoder and whose receiver has a decoder.

        Raises:
            ArgumentError: there is no such configuration.
        """
        if not self.config.is_file():
            raise ArgumentError(None, f"there is no configuration {self.config}.")
        fuser, trained = self.hub.fuser, self.hub.description.directions
        directions = [
            direction
            for direction in all_directions(list(self.hub.description.models))
            if direction.sharer in fuser.encoders and direction.receiver in fuser.decoders
        ]
        results = [
            {"direction": str(direction), "trained": direction in trained, "accuracy": self._measure(direction)}
            for direction in directions
        ]
        text = json.dumps({"directions": results}, indent=2)
        (self.output_dir / RESULT).write_text(text + "\n", encoding="utf-8")
        Console().print(accuracy_table(results))
        logger.info("accuracies written to %s", self.output_dir / RESULT)

    def _measure(self, direction: Direction) -> dict[str, float]:
        """Accuracy of each responder in one direction, the mean over the benchmarks."""
        folder = self.output_dir / str(direction)
        self.hub.export(direction, folder / "fuser", overwrite=True)
        text = self.config.read_text(encoding="utf-8")
        text = text.replace("{sharer}", direction.sharer).replace("{receiver}", direction.receiver)
        (folder / "evaluation.yaml").write_text(text, encoding="utf-8")
        places = {"model.fuser": str(folder / "fuser"), "model.output_dir": str(folder)}
        run_step("test", [str(folder / "evaluation.yaml")], {**places, "trainer.default_root_dir": str(folder)})
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        accuracies: dict[str, list[float]] = {}
        for benchmark in report["benchmarks"].values():
            for name, responder in benchmark["responders"].items():
                accuracies.setdefault(name, []).append(responder["accuracy"])
        return {name: sum(values) / len(values) for name, values in accuracies.items()}


def accuracy_table(results: list[dict[str, Any]]) -> Table:
    """One row for each direction, one column for each responder."""
    names = list(dict.fromkeys(name for result in results for name in result["accuracy"]))
    table = Table("direction", "trained", *names)
    for result in results:
        cells = (f"{result['accuracy'][name]:.1%}" if name in result["accuracy"] else "" for name in names)
        table.add_row(result["direction"], "yes" if result["trained"] else "no", *cells)
    return table
