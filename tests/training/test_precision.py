"""Frozen models in bfloat16 under a fuser in float32: what has which type, and that it learns the same."""

from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.nn.utils import get_total_norm

from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, loader, module, trainer

ROWS = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


def trained(models: Path, folder: Path, precision: str, dtype: str = "bfloat16") -> tuple[C2CModule, list[float]]:
    """A module after some steps over models of a type, and its losses."""
    L.seed_everything(1, verbose=False)
    losses, made = Losses(), module(models, plain=True, lr=0.5, gate_noise="none")
    made.receiver_spec = replace(made.receiver_spec, dtype=dtype)
    made.sharer_specs = [replace(spec, dtype=dtype) for spec in made.sharer_specs]
    fit = trainer(folder, len(ROWS), [losses], precision=precision, gradient_clip_val=1.0)
    fit.fit(made, loader(made, ROWS))
    return made, losses.losses


@pytest.fixture(scope="module")
def exact(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[C2CModule, list[float]]:
    """Everything in float32."""
    return trained(models, tmp_path_factory.mktemp("exact"), "32-true", "float32")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", "float32"), ("bf16-mixed", "float32"), ("bf16-true", "bfloat16")]
)
def test_types(precision: str, dtype: str, models: Path, tmp_path: Path, exact: tuple[C2CModule, list[float]]) -> None:
    made, losses = trained(models, tmp_path, precision)
    fuser = list(made.model.fuser.parameters())
    assert {p.dtype for p in fuser} == {getattr(torch, dtype)}
    assert {p.grad.dtype for p in fuser if p.grad is not None} == {getattr(torch, dtype)}
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in fuser)
    assert {p.dtype for lm in (made.model.receiver, *made.model.sharers) for p in lm.model.parameters()} == {
        torch.bfloat16
    }
    assert losses == pytest.approx(exact[1], rel=0.05)
    assert losses != exact[1]


def test_clipping_with_a_fused_optimizer(models: Path, tmp_path: Path) -> None:
    """The default AdamW is fused, and Lightning alone refuses to clip its gradients in mixed precision."""
    norms = {}
    for clip in (1e-9, None):
        made = module(models, gate_noise="none")
        trainer(tmp_path, 1, precision="bf16-mixed", gradient_clip_val=clip).fit(made, loader(made, [[1, 2]]))
        norms[clip] = float(get_total_norm([p.grad for p in made.model.fuser.parameters() if p.grad is not None]))
    assert norms[1e-9] == pytest.approx(1e-9, rel=1e-3)
    assert norms[None] > 1e-3


def test_float32_weights_keep_steps_that_bfloat16_loses(
    models: Path, tmp_path: Path, exact: tuple[C2CModule, list[float]]
) -> None:
    """How far three steps lead from those of float32 throughout; that is why the fuser is float32 by default."""
    distances = {}
    for precision in ("32-true", "bf16-true"):
        made, _ = trained(models, tmp_path / precision, precision)
        pairs = zip(made.model.fuser.parameters(), exact[0].model.fuser.parameters(), strict=True)
        distances[precision] = max(float((ours.float() - theirs).abs().max()) for ours, theirs in pairs)
    assert distances["32-true"] < 0.3 * distances["bf16-true"]
