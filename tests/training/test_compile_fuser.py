"""A compiled fuser: the same numbers, the same names, a plain fuser in files and copies."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import lightning as L
import pytest
import torch

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.training.checkpoint import AtomicCheckpointIO
from c2c_lightning.training.module import C2CModule
from tests.training.runs import loader, module, trainer

ROWS = [[1, 2], [3, 4, 5], [6], [7, 8, 9, 10]]


def trained(models: Path, folder: Path, backend: str | bool, steps: int = 4, resume: Path | None = None) -> C2CModule:
    """A module after some steps, which are gradients, so that differences stay visible; its checkpoint in `folder`."""
    L.seed_everything(1, verbose=False)
    choices = {"plain": True, "lr": 0.1, "gate_noise": "none"}
    made = module(models, settings={"compile_fuser": backend}, **choices)  # type: ignore[arg-type]
    fit = trainer(folder, steps, plugins=[AtomicCheckpointIO()])
    path = None if resume is None else str(resume)
    fit.fit(made, loader(made, ROWS[:steps] if resume is None else ROWS), ckpt_path=path, weights_only=True)
    fit.save_checkpoint(folder / "run.ckpt")
    return made


def difference(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    return max(float((a - b).abs().max()) for (name, a), (other, b) in pairs if name == other)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_training_is_the_same(backend: str, models: Path, tmp_path: Path) -> None:
    """Saved in the middle by a compiled run, and resumed by a compiled one and by a plain one."""
    plain = trained(models, tmp_path / "plain", False)
    compiled = trained(models, tmp_path / "compiled", backend)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert difference(plain, compiled) < 1e-6
    saved = torch.load(tmp_path / "compiled" / "run.ckpt", weights_only=True)
    assert not any("_orig_mod" in name for name in saved["state_dict"])
    for choice in (backend, False):
        resumed = trained(models, tmp_path / "resumed", choice, 6, tmp_path / "compiled" / "run.ckpt")
        onward = trained(models, tmp_path / "onward", False, 6, tmp_path / "plain" / "run.ckpt")
        assert difference(resumed, onward) < 1e-6
        assert difference(resumed, plain) > 1e-3


def test_a_copy_is_a_plain_fuser(models: Path) -> None:
    """Averaged weights are kept in a deep copy, which must not run the original's code."""
    made = module(models, settings={"compile_fuser": "eager"})
    made.configure_model()
    group = made.model.fuser.sharers[0].groups[0]
    assert all(part._compiled_call_impl is not None for part in group.children())
    assert all(part._compiled_call_impl is None for part in deepcopy(group).children())


def test_an_unknown_backend_is_named(models: Path) -> None:
    made = module(models, settings={"compile_fuser": "fastest"})
    with pytest.raises(ConfigurationError, match=r"'fastest' is not a backend.*inductor"):
        made.configure_model()


INDUCTOR = """
import sys, torch
from pathlib import Path
from tests.training.runs import batch, module
def gradients(choice):
    torch.manual_seed(0)
    made = module(Path(sys.argv[1]), gate_noise="none", settings={"compile_fuser": choice})
    made.configure_model()
    for rows in ([1, 2], [3, 4, 5], [6]):
        made.model.batch_loss(batch(made, rows)).backward()
    return [p.grad for p in made.parameters() if p.grad is not None]
pairs = zip(gradients(False), gradients(True), strict=True)
print(max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs))
print(torch._dynamo.utils.counters["stats"]["unique_graphs"], dict(torch._dynamo.utils.counters["graph_break"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inductor(models: Path, tmp_path: Path) -> None:
    """Three batch sizes without one compilation each; outside of pytest, whose checks of shapes would be compiled."""
    # A cache of its own: what a killed run left half written in the common one would be loaded.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", "-c", INDUCTOR, str(models)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env=environment, check=False)
    if "InvalidCxxCompiler" in done.stderr:
        pytest.skip("inductor needs a C++ compiler")
    assert done.returncode == 0, done.stderr[-2000:]
    largest, graphs = done.stdout.splitlines()[-2:]
    assert float(largest) < 1e-5
    assert graphs.endswith("{}")
    assert int(graphs.split()[0]) <= 6
