"""Resuming: the rate of the new schedule, and checkpoints that do not fit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import SGD, AdamW

from c2c_lightning.cli import main
from c2c_lightning.errors import C2CError, CheckpointError, ConfigurationError
from c2c_lightning.training.checkpoint_io import AtomicCheckpointIO
from c2c_lightning.training.module import C2CModule
from c2c_lightning.training.optim import ParameterGroups, Schedule
from c2c_lightning.training.resumed_progress import keeps_state
from tests.training.runs import loader, module, trainer

FIT = str(Path(__file__).parents[1] / "conf" / "fit.yaml")
ROWS = [[number] for number in range(1, 7)]


class Rates(Callback):
    """Keeps the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(
    made: C2CModule, folder: Path, steps: int, ckpt_path: Path | None = None, weights_only: bool = True
) -> list[float]:
    """Rates of a run, which leaves `end.ckpt` and `weights.ckpt`."""
    rates = Rates()
    run = trainer(folder, steps, [rates], plugins=[AtomicCheckpointIO()])
    path = None if ckpt_path is None else str(ckpt_path)
    run.fit(made, loader(made, ROWS), ckpt_path=path, weights_only=weights_only)
    run.save_checkpoint(folder / "end.ckpt")
    run.save_checkpoint(folder / "weights.ckpt", weights_only=True)
    return rates.rates


@pytest.fixture(scope="module")
def ended(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps."""
    folder = tmp_path_factory.mktemp("ended")
    fit(module(models), folder, 3)
    return folder


def test_an_extended_run_has_the_rates_of_its_own_schedule(models: Path, tmp_path: Path, ended: Path) -> None:
    whole = fit(module(models), tmp_path, 6)
    extended = fit(module(models), tmp_path, 6, ended / "end.ckpt")
    assert extended == whole[3:]
    assert extended[0] > 0


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "another size": ({"hidden_dim": 16}, "hidden_dim is 8 there and 16 here"),
    "fewer gates": ({"kind": "no_gates"}, "unexpected: .*gate"),
    "another optimizer": ({"plain": True}, "another optimizer than SGD"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_checkpoint_of_another_configuration(name: str, models: Path, tmp_path: Path, ended: Path) -> None:
    choices, message = MISTAKES[name]
    with pytest.raises(CheckpointError, match=message):
        fit(module(models, **choices), tmp_path, 6, ended / "end.ckpt")


def changed(ended: Path, folder: Path, change: Any) -> Path:
    content = torch.load(ended / "end.ckpt", weights_only=True)
    change(content)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def misshape(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"][2]["exp_avg"] = torch.zeros(1)


def drop(content: dict[str, Any]) -> None:
    del content["optimizer_states"][0]["state"][2]["exp_avg_sq"]


def lose_optimizer(content: dict[str, Any]) -> None:
    content["optimizer_states"] = []


def mistype(content: dict[str, Any]) -> None:
    content["state_dict"] = dict.fromkeys(content["state_dict"], 3)


def mistype_optimizer(content: dict[str, Any]) -> None:
    content["optimizer_states"] = [3]


def add_state(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"][999] = {}


def empty_optimizer(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"] = {}


def empty_states(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"] = {n: {} for n in content["optimizer_states"][0]["state"]}


def lose_loops(content: dict[str, Any]) -> None:
    del content["loops"]


def mistype_loops(content: dict[str, Any]) -> None:
    content["loops"] = {"fit_loop": 3}


def lose_counter(content: dict[str, Any]) -> None:
    del content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]


def negative_counter(content: dict[str, Any]) -> None:
    content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = -1


def text_for_a_counter(content: dict[str, Any]) -> None:
    content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"] = {"ready": "three"}


def lose_schedule(content: dict[str, Any]) -> None:
    del content["lr_schedulers"]


def empty_schedules(content: dict[str, Any]) -> None:
    content["lr_schedulers"] = []


def mistype_schedule(content: dict[str, Any]) -> None:
    content["lr_schedulers"] = ["constant"]


def lose_epoch(content: dict[str, Any]) -> None:
    del content["lr_schedulers"][0]["last_epoch"]


def text_for_an_epoch(content: dict[str, Any]) -> None:
    content["lr_schedulers"][0]["last_epoch"] = "three"


def spoil(content: dict[str, Any]) -> None:
    next(iter(content["state_dict"].values())).flatten()[0] = torch.nan


def spoil_optimizer(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["state"][1]["exp_avg"].flatten()[0] = torch.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (misshape, r"`exp_avg` of shape \(1,\)"),
        (drop, "state 2 of AdamW has no exp_avg_sq"),
        (lose_optimizer, "weights only"),
        (mistype, "not one of `lightning fit`"),
        (mistype_optimizer, "not one of `lightning fit`"),
        (add_state, "not one of `lightning fit`"),
        (empty_optimizer, "state of AdamW is empty"),
        (empty_states, "state of AdamW is empty"),
        (lose_loops, r"`loops.fit_loop` is NoneType, not a mapping"),
        (mistype_loops, r"`loops.fit_loop` is int, not a mapping"),
        (lose_counter, r"`epoch_loop.batch_progress`.`current` has no `ready`"),
        (negative_counter, r"`epoch_progress`.`current`.`processed` is -1, which is impossible"),
        (text_for_a_counter, r"`epoch_loop.batch_progress`.`total`"),
        (lose_schedule, r"no states of 1 learning rate schedule"),
        (empty_schedules, r"no states of 1 learning rate schedule"),
        (mistype_schedule, r"`lr_schedulers.0` is str, not a mapping"),
        (lose_epoch, r"`lr_schedulers.0` has no `last_epoch`"),
        (text_for_an_epoch, r"`last_epoch` is 'three', which is impossible"),
        (spoil, "NaN or infinity in model.fuser"),
        (spoil_optimizer, "NaN or infinity in optimizer.1.exp_avg"),
    ],
)
def test_a_changed_checkpoint(change: Any, message: str, models: Path, tmp_path: Path, ended: Path) -> None:
    """A fused optimizer reads out of bounds where its state has another shape."""
    with pytest.raises(CheckpointError, match=message):
        fit(module(models), tmp_path, 6, changed(ended, tmp_path, change))


@pytest.mark.parametrize(("momentum", "expected"), [(0.0, False), (0.9, True)])
def test_an_optimizer_without_memory_has_no_state_to_miss(momentum: float, expected: bool) -> None:
    assert keeps_state(SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=momentum)) == expected


def test_weights_alone(models: Path, tmp_path: Path, ended: Path) -> None:
    with pytest.raises(CheckpointError, match="weights only"):
        fit(module(models), tmp_path, 6, ended / "weights.ckpt")


def test_code_in_a_checkpoint_is_refused_whatever_is_asked(models: Path, tmp_path: Path, ended: Path) -> None:
    with pytest.raises(CheckpointError, match="weights_only: false"):
        fit(module(models), tmp_path, 6, ended / "end.ckpt", weights_only=False)
    torch.save({"state_dict": {}, "code": Path("x")}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="run code from the file"):
        fit(module(models), tmp_path, 6, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="weights_only: false"):
        C2CModule.load_from_checkpoint(ended / "end.ckpt", weights_only=False)


def test_validation_without_a_checkpoint_says_so(models: Path, tmp_path: Path, ended: Path) -> None:
    made = module(models)
    run = trainer(tmp_path, 1, plugins=[AtomicCheckpointIO()])
    with pytest.warns(UserWarning, match="untrained fuser"):
        run.validate(made, loader(made, [[1]]), verbose=False)


def test_validation_of_a_checkpoint_or_after_training_says_nothing(
    models: Path, tmp_path: Path, ended: Path, recwarn: pytest.WarningsRecorder
) -> None:
    made = module(models)
    run = trainer(tmp_path, 1, plugins=[AtomicCheckpointIO()])
    run.validate(made, loader(made, [[1]]), ckpt_path=str(ended / "end.ckpt"), weights_only=True, verbose=False)
    trained = module(models)
    fit(trained, tmp_path, 1)
    trainer(tmp_path, 1).validate(trained, loader(trained, [[1]]), verbose=False)
    assert not [warning for warning in recwarn if "untrained" in str(warning.message)]


def test_a_schedule_needs_the_number_of_steps(models: Path, tmp_path: Path) -> None:
    made = module(models)
    run = trainer(tmp_path, -1, max_time={"seconds": 1}, max_epochs=-1)
    with pytest.raises(ConfigurationError, match=r"trainer\.max_steps"):
        run.fit(made, loader(made, ROWS))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_a_rate_that_is_no_number(rate: float, models: Path) -> None:
    made = module(models)
    made.configure_model()
    with pytest.raises(ConfigurationError, match=r"lr|learning rate"):
        ParameterGroups().build(made.model.fuser, lambda groups: AdamW(groups, lr=rate))
    with pytest.raises(C2CError, match="gate_rate"):
        ParameterGroups(gate_rate=rate)


def test_a_warmup_that_is_no_share() -> None:
    with pytest.raises(C2CError, match="warmup"):
        Schedule(warmup=float("nan"))
    assert Schedule(warmup=0.5).build(SGD([torch.zeros(1)], lr=1.0), 4).get_last_lr() == [0.0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--ckpt_path", "best"], "best"),
        (["--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", ".nan"], "lr is NaN"),
        (["--trainer.default_root_dir", FIT], "is a file"),
        (["--trainer.max_steps", "-1", "--trainer.max_time", "00:00:00:01"], "trainer.max_steps"),
    ],
)
def test_mistakes_at_the_command_line(
    options: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", FIT, *options])
    assert exit_.value.code == 1
    assert named in capsys.readouterr().err


CHOICES = """
from c2c_lightning import C2CModule, LMSpec
from c2c_lightning.data.encode import Encoder, TokenizerSpec
from c2c_lightning.errors import C2CError
from c2c_lightning.training.optim import ParameterGroups, Schedule
from tests.tiny import tiny_tokenizer
models = LMSpec("x"), [LMSpec("y")]
encoder = Encoder(TokenizerSpec(tiny_tokenizer()), [], "auto")
for wrong in (
    lambda: C2CModule(*models, loss_average="token"),
    lambda: C2CModule(*models, non_finite="skp"),
    lambda: LMSpec("x", dtype="float23"),
    lambda: Schedule("cosin"),
    lambda: ParameterGroups("10"),
    lambda: encoder.encode_many([[{"role": "user", "content": "x"}]], None, {"enable_thinking": True}),
):
    try:
        wrong()
    except C2CError as error:
        print(error)
"""


@pytest.mark.slow
def test_choices_made_in_python_are_checked() -> None:
    """In a process of its own, without the type checker of the tests."""
    result = subprocess.run([sys.executable, "-c", CHOICES], capture_output=True, text=True, check=True)
    assert len(result.stdout.splitlines()) == 6
