"""What only the sharer reads reaches the receiver: the shipped configurations, with fewer steps."""

import json
from pathlib import Path

import pytest

from c2c_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
def test_a_note_of_the_sharer_reaches_the_receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fewer = ["--trainer.max_steps", "200", "--model.fuser.anneal_steps", "200"]
    overlaid = [str(CONFIGS / "fit" / f"{name}.yaml") for name in ("quickstart", "quickstart_private_context")]
    main(["fit", "--config", overlaid[0], "--config", overlaid[1], *fewer])
    shorter = ["--model.responders", '["receiver", "c2c"]', "--model.controls", '["mismatched", "gates_closed"]']
    main(["test", "--config", str(CONFIGS / "eval" / "quickstart_private_context.yaml"), *shorter])
    report = json.loads((tmp_path / "runs" / "quickstart_private_context" / "report.json").read_text())
    right = {name: line["accuracy"] for name, line in report["benchmarks"]["private_context"]["responders"].items()}
    assert right["receiver"] == right["c2c:gates_closed"] < 0.17
    assert right["c2c"] >= 0.85
    assert right["c2c:mismatched"] < 0.2
    assert report["benchmarks"]["private_context"]["verdict"]["communication"]
