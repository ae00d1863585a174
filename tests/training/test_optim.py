"""Parameter groups, learning rates and temperatures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.training.callbacks.temperature import temperature_at
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.optim import ParameterGroups, Schedule
from tests.training.runs import module, trainer


@pytest.fixture
def made(models: Path) -> C2CModule:
    made = module(models)
    made.configure_model()
    return made


def groups(made: C2CModule, **choices: Any) -> list[dict[str, Any]]:
    build = ParameterGroups(**choices).build
    optimizer = build(made.model.fuser, lambda parameters: AdamW(parameters, lr=0.1, weight_decay=0.01))
    return optimizer.param_groups


def test_each_parameter_is_in_one_group(made: C2CModule) -> None:
    grouped = [id(p) for group in groups(made) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in made.parameters())


def test_gates_have_a_rate_of_their_own_and_no_decay(made: C2CModule) -> None:
    weights, norms, gates = groups(made, gate_rate=10.0)
    names = {id(p): name for name, p in made.named_parameters()}
    assert {names[id(p)].rsplit(".", 2)[-2] for p in norms["params"]} == {"norm"}
    assert {names[id(p)].rsplit(".", 1)[-1] for p in gates["params"]} == {"logit"}
    assert [group["lr"] for group in (weights, norms, gates)] == pytest.approx([0.1, 0.1, 1.0])
    assert [group["weight_decay"] for group in (weights, norms, gates)] == [0.01, 0.0, 0.0]


def test_decay_of_everything_as_released(made: C2CModule) -> None:
    assert {group["weight_decay"] for group in groups(made, decay_all=True)} == {0.01}


def test_a_fuser_without_gates(models: Path) -> None:
    made = module(models, kind="no_gates")
    made.configure_model()
    assert len(groups(made, gate_rate=10.0)) == 2
    assert {group["lr"] for group in groups(made, gate_rate=10.0)} == {0.1}


def test_the_rate_rises_and_falls_in_proportion(made: C2CModule) -> None:
    optimizer = SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 10.0}], lr=1.0)
    schedule = Schedule("linear", 0.1).build(optimizer, 20)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert [common for common, _ in rates[:4]] == pytest.approx([0.0, 0.5, 1.0, 17 / 18])
    assert all(gate == pytest.approx(10 * common) for common, gate in rates)
    assert rates[-1][0] == pytest.approx(1 / 18)


@pytest.mark.parametrize(("schedule", "expected"), [("geometric", 0.166), ("linear", 0.740)])
def test_temperature_after_a_quarter_of_the_run(schedule: Any, expected: float) -> None:
    """Figures of the released code and of the paper's text; they differ by a factor of four."""
    config = FuserConfig(temperature_schedule=schedule, anneal_steps=100)
    assert temperature_at(26, config) == pytest.approx(expected, abs=1e-3)
    assert temperature_at(0, config) == 1.0
    assert temperature_at(100, config) == temperature_at(500, config) == pytest.approx(0.001)


def test_training_sets_the_temperature_of_its_step(models: Path, tmp_path: Path) -> None:
    from tests.training.runs import loader

    made = module(models, anneal_steps=4, temperature_schedule="linear")
    trainer(tmp_path, 2).fit(made, loader(made, [[1], [2]]))
    temperatures = [gate.temperature for _, _, *gates in made.model.fuser.gates() for gate in gates]
    assert all(torch.allclose(t, torch.tensor(1 - 0.999 / 2)) for t in temperatures)
