"""What trains, what does not, and by which loss."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pytest
import torch

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.mismatch import swap_sharers
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, batch, loader, module, trainer

MAPS = ["features.input", "projector.output", "weighting.output"]
BLOCKS = ["features.block", "projector.blocks.0", "weighting.block"]
# Of the keys of all receiver layers, and of the values: three blocks, two ways out, the gate.
PARTS = [
    *(f"{map_}.{kind}" for map_ in MAPS for kind in ("weight", "bias")),
    *(f"{block}.{part}.weight" for block in BLOCKS for part in ("norm", "w1", "w2")),
    "gate.logit",
]


def trained(models: Path, folder: Path, batches: Sequence[Sequence[int]], steps: int, **choices: object) -> C2CModule:
    """Train and return the module; windows of two batches where `accumulate` says so."""
    accumulate = choices.pop("accumulate", 1)
    L.seed_everything(1, verbose=False)
    made = module(models, **choices)  # type: ignore[arg-type]
    trainer(folder, steps, accumulate_grad_batches=accumulate).fit(made, loader(made, batches))
    return made


def weights(made: C2CModule) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in made.named_parameters()}


def test_the_fuser_trains_and_nothing_else(models: Path) -> None:
    made = module(models)
    made.configure_model()
    names = [name for name, value in made.named_parameters() if value.requires_grad]
    prefix = "model.fuser.sharers.0.groups.0"
    assert sorted(names) == sorted(f"{prefix}.{side}.{part}" for side in ("keys", "values") for part in PARTS)
    assert sum(value.requires_grad for value in made.parameters()) == len(list(made.parameters()))


def test_every_weight_of_the_fuser_moves_and_no_other(models: Path, tmp_path: Path) -> None:
    L.seed_everything(1, verbose=False)
    made = module(models)
    made.configure_model()
    before = weights(made)
    frozen = [p.clone() for lm in (made.model.receiver, *made.model.sharers) for p in lm.model.parameters()]
    trainer(tmp_path, 4).fit(made, loader(made, [[1, 2], [3, 4, 5], [6, 7], [8, 9]]))
    assert [name for name, value in weights(made).items() if torch.equal(value, before[name])] == []
    after = [p for lm in (made.model.receiver, *made.model.sharers) for p in lm.model.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(frozen, after, strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in after)
    assert not made.model.receiver.model.training


def test_the_same_loss_in_windows_and_in_one_batch(models: Path, tmp_path: Path) -> None:
    """Unequal batches and a short last window: gradients are means over tokens, whatever the split."""
    settings = {"plain": True, "gate_noise": "none", "lr": 0.5}
    # Two epochs' worth in one: windows (5 + 1 rows), (2 rows: the short last one).
    split = trained(models, tmp_path, [[1, 2, 3, 4, 5], [6], [7, 8]], 2, accumulate=2, **settings)
    whole = trained(models, tmp_path, [[1, 2, 3, 4, 5, 6], [7, 8]], 2, **settings)
    for name, value in weights(split).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-5, atol=1e-6, msg=name)


def test_mean_of_batches_as_released(models: Path, tmp_path: Path) -> None:
    settings = {"plain": True, "gate_noise": "none", "lr": 0.5}
    rows = [[1, 2, 3, 4, 5], [6]]
    tokens = trained(models, tmp_path, rows, 1, accumulate=2, **settings)
    means = trained(models, tmp_path, rows, 1, accumulate=2, loss_average="batches", **settings)
    differences = [(a - b).abs().max() for a, b in zip(tokens.parameters(), means.parameters(), strict=True)]
    assert max(differences) > 1e-4


def test_validation_losses(models: Path, tmp_path: Path) -> None:
    made = module(models)
    made.configure_model()
    batches = [[1, 2, 3], [4]]
    rows = [batch(made, numbers) for numbers in batches]
    run = trainer(tmp_path, 1)
    result = run.validate(made, loader(made, batches), verbose=False)[0]
    made.eval()  # the trainer puts it back into training mode
    with torch.no_grad():
        tokens = sum(int(row.response_mask.sum()) for row in rows)
        fused = sum(float(made.model.response_loss(row)) for row in rows) / tokens
        alone = sum(float(receiver_loss(made, row)) for row in rows) / tokens
    assert result["val/loss"] == pytest.approx(fused, rel=1e-6)
    assert result["val/loss_receiver"] == pytest.approx(alone, rel=1e-6)
    assert abs(fused - alone) > 1e-3


def test_a_neighbours_cache(models: Path, tmp_path: Path) -> None:
    """Each row's sharer reads the next row: as if the sharer had been given that conversation."""
    made = module(models, token_alignment="span")
    made.configure_model()
    result = trainer(tmp_path, 1).validate(made, loader(made, [[1, 2, 3], [4]]), verbose=False)[0]
    made.eval()
    with torch.no_grad():
        losses, tokens = 0.0, 0
        for own, other in ((1, 2), (2, 3), (3, 1)):
            row, donor = batch(made, [own]), batch(made, [other])
            prompt = swap_sharers(row.prompt, donor.prompt)
            losses += float(made.model.response_loss(TrainingBatch(prompt, row.response_ids, row.response_mask)))
            tokens += int(row.response_mask.sum())
    assert result["val/loss_mismatched"] == pytest.approx(losses / tokens, rel=1e-6)  # row 4 has no neighbour
    assert abs(result["val/loss_mismatched"] - result["val/loss"]) > 1e-4


def test_rows_without_neighbours(models: Path, tmp_path: Path) -> None:
    made = module(models)
    result = trainer(tmp_path, 1).validate(made, loader(made, [[1], [2]]), verbose=False)[0]
    assert set(result) == {"val/loss", "val/loss_receiver"}


def receiver_loss(made: C2CModule, row: object) -> torch.Tensor:
    """The bare receiver's summed loss, in one pass by transformers alone."""
    prompt, ids, mask = row.prompt.receiver, row.response_ids, row.response_mask  # type: ignore[attr-defined]
    attention = torch.cat([prompt.mask, mask.long()], 1)
    logits = made.model.receiver.model(
        input_ids=torch.cat([prompt.input_ids, ids], 1),
        attention_mask=attention,
        position_ids=(attention.cumsum(1) - 1).clamp(min=0),
    ).logits[:, prompt.input_ids.shape[1] - 1 : -1]
    return torch.nn.functional.cross_entropy(logits[mask], ids[mask], reduction="sum")


def test_closed_gates_are_the_receiver_exactly(models: Path, tmp_path: Path) -> None:
    made = module(models, gate_init=-1.0)
    result = trainer(tmp_path, 1).validate(made, loader(made, [[1, 2, 3], [4]]), verbose=False)[0]
    assert result["val/loss"] == result["val/loss_receiver"]


def test_the_receiver_is_measured_once(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module(models)
    made.configure_model()
    alone: list[object] = []
    original = made.model.response_loss

    def counted(row: object, active_sharers: object = None) -> torch.Tensor:
        alone.extend([row] if active_sharers == () else [])
        return original(row, active_sharers)  # type: ignore[arg-type]

    monkeypatch.setattr(made.model, "response_loss", counted)
    run = trainer(tmp_path, 3, val_check_interval=1, num_sanity_val_steps=1)
    run.fit(made, loader(made, [[1], [2], [3]]), loader(made, [[4], [5]]))
    # One batch to see that validation works, then both batches of the first validation.
    assert len(alone) == 3
    assert run.callback_metrics["val/loss_receiver"] > 0


def test_gates_without_noise_do_not_learn_and_break_nothing(models: Path, tmp_path: Path) -> None:
    made = trained(models, tmp_path, [[1, 2], [3]], 2, gate_noise="none", gate_init=-1.0)
    logits = made.model.fuser.gate_logits()
    assert torch.equal(logits, torch.full_like(logits, -1.0))
    assert not any(value.requires_grad for name, value in made.named_parameters() if name.endswith("gate.logit"))
    assert all(value.grad is not None for value in made.parameters() if value.requires_grad)


def test_losses_are_those_of_the_model(models: Path, tmp_path: Path) -> None:
    losses = Losses()
    made = module(models, gate_noise="none")
    run = trainer(tmp_path, 1, [losses])
    run.fit(made, loader(made, [[1, 2]]))
    row = batch(made, [1, 2])
    logged = float(run.callback_metrics["train/loss"])
    assert logged == pytest.approx(losses.losses[0] / int(row.response_mask.sum()))


def test_other_validation_data_is_measured_anew(models: Path, tmp_path: Path) -> None:
    """After a fit the same module may validate on other rows: the receiver's loss is theirs."""
    made = module(models)
    run = trainer(tmp_path, 1, limit_val_batches=1, num_sanity_val_steps=0)
    run.fit(made, loader(made, [[1]]), loader(made, [[2, 3]]))
    after = run.validate(made, loader(made, [[7, 8, 9]]), verbose=False)[0]
    fresh = module(models)
    alone = trainer(tmp_path, 1).validate(fresh, loader(fresh, [[7, 8, 9]]), verbose=False)[0]
    assert after["val/loss_receiver"] == pytest.approx(alone["val/loss_receiver"], rel=1e-6)
