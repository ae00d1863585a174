"""A hub: the fuser of a direction from shared parts, their gradients, untrained directions, and what it refuses."""

from typing import Any

import pytest
import torch
from torch.func import functional_call

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import Direction, all_directions
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.hub_fuser import HubFuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from tests.fuser.kinds import HYBRID, RECEIVER, SHARER, STEP, entries_of

MODELS = {"qwen": RECEIVER, "llama": SHARER, "mixed": HYBRID}
"""Three, four and three layers; the last model has layers of two shapes."""


def new_hub(
    directions: list[Direction] | None = None, models: dict[str, KVGeometry] = MODELS, **options: Any
) -> HubFuser:
    torch.manual_seed(0)
    config = FuserConfig(
        kind="hub",
        hidden_dim=8,
        intermediate_dim=6,
        dropout=0.0,
        gate_init=0.5,
        layer_alignment="depth",
        options={"latent_layers": 5, "latent_dim": 7, **options},
    )
    hub = HubFuser(models, config, all_directions(list(models)) if directions is None else directions)
    with torch.no_grad():
        for parameter in hub.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter).abs())
    return hub


def fused(fuser: Any, direction: Direction) -> torch.Tensor:
    mine, theirs = entries_of(MODELS[direction.receiver], 5, 1), entries_of(MODELS[direction.sharer], 6, 2)
    return torch.cat([torch.cat([kv.keys.flatten(), kv.values.flatten()]) for kv in fuser(mine, [theirs], STEP)])


@pytest.mark.parametrize("direction", all_directions(list(MODELS)), ids=str)
@pytest.mark.parametrize("kind", ["c2c", "low_rank"])
def test_shared_parts_give_the_exported_pair(direction: Direction, kind: str) -> None:
    hub = new_hub(kind=kind, **({"rank": 6} if kind == "low_rank" else {}))
    template = hub.template(direction).eval()
    joint = fused(lambda *args: functional_call(template, hub.pair_tensors(direction), args), direction)
    exported = hub.pair(direction)
    assert torch.equal(joint, fused(exported, direction))
    untouched = torch.cat([torch.cat([kv.keys.flatten(), kv.values.flatten()])
                           for kv in entries_of(MODELS[direction.receiver], 5, 1)])  # fmt: skip
    assert not torch.equal(joint, untouched)
    assert exported.config.layer_map == hub.layout.pair_config(direction).layer_map


def test_directions_of_one_sharer_share_its_encoder_and_those_of_one_receiver_its_decoder() -> None:
    hub = new_hub()
    first = hub.pair_tensors(Direction("llama", "qwen"))
    second = hub.pair_tensors(Direction("llama", "mixed"))
    third = hub.pair_tensors(Direction("mixed", "qwen"))
    decoder = "sharers.0.groups.0.inner.keys.projector.output.weight"
    assert torch.equal(first[decoder][0], third[decoder][0])
    encoder = "sharers.0.groups.0.encoder.keys.input.weight"
    read = [hub.layout.latent_layers(name) for name in ("qwen", "mixed")]
    assert read[0][0] == read[1][0]
    assert torch.equal(first[encoder][0], second[encoder][0])


def test_gradients_of_a_pair_reach_the_parts() -> None:
    hub, direction = new_hub(), Direction("llama", "qwen")
    template = hub.template(direction).eval()
    fused(
        lambda *args: functional_call(template, hub.pair_tensors(direction), args), direction
    ).square().sum().backward()
    pair = hub.pair(direction)
    fused(pair, direction).square().sum().backward()
    weight = hub.encoders["llama"].stacks[0].keys.input.weight.grad
    expected = torch.zeros_like(weight)
    copied = pair.sharers[0].groups[0].encoder.keys.input.weight.grad
    for row, latent in enumerate(hub.layout.latent_layers("qwen")):
        expected[latent] += copied[row]
    torch.testing.assert_close(weight, expected)
    touched = {name.split(".")[1] for name, p in hub.named_parameters() if p.grad is not None}
    assert touched == {"llama", "qwen"}, "no other model's parts, and no gate: they are hard in evaluation"


def test_an_untrained_direction_has_the_mean_of_its_receivers_gates() -> None:
    models, untrained = {**MODELS, "other": SHARER}, Direction("llama", "qwen")
    hub = new_hub([d for d in all_directions(list(models)) if d != untrained], models)
    with torch.no_grad():
        hub.direction_gates["mixed_to_qwen"][0].logit.copy_(torch.tensor([0.1, 0.2, 0.3]))
        hub.direction_gates["other_to_qwen"][0].logit.copy_(torch.tensor([0.3, 0.6, -0.1]))
    logits = hub.pair_tensors(untrained)["sharers.0.groups.0.inner.keys.gate.logit"]
    torch.testing.assert_close(logits, torch.tensor([0.2, 0.4, 0.1]))
    assert fused(hub.pair(untrained), untrained).isfinite().all()


def test_parameters_of_a_hub_are_one_encoder_and_decoder_per_model_and_gates_per_direction() -> None:
    hub = new_hub()
    counts = hub.num_parameters()
    assert sum(counts.values()) == sum(p.numel() for p in hub.parameters())
    assert len(counts) == 3 + 3 + 6
    assert counts["gates llama_to_qwen"] == 2 * RECEIVER.num_layers
    roles = hub.parameter_roles()
    assert len(roles.weights) + len(roles.norms) + len(roles.gates) == len(list(hub.parameters()))
    assert len(roles.gates) == 12
    assert {id(p) for p in roles.norms} == {id(p) for n, p in hub.named_parameters() if "norm" in n}


def test_frozen_parts_are_in_no_role() -> None:
    hub = new_hub()
    hub.freeze([name for name, _ in hub.named_parameters() if ".mixed." not in name])
    roles = hub.parameter_roles()
    trained = {id(p) for p in (*roles.weights, *roles.norms, *roles.gates)}
    assert trained == {id(p) for name, p in hub.named_parameters() if ".mixed." in name}


@pytest.mark.parametrize(
    ("models", "directions", "message"),
    [
        (MODELS, [Direction("lama", "qwen")], "unknown model 'lama'.*Did you mean 'llama'"),
        (MODELS, [Direction("qwen", "qwen")], "leads from a model to itself"),
        (MODELS, [Direction("llama", "qwen")] * 2, "llama_to_qwen are given twice"),
        (MODELS, [], "at least one direction"),
        ({"a.b": RECEIVER, "c": SHARER}, [Direction("c", "a.b")], "cannot be named 'a.b'"),
        ({"a_to_b": RECEIVER, "c": SHARER}, [Direction("c", "a_to_b")], "cannot be named 'a_to_b'"),
        ({"keys": RECEIVER, "c": SHARER}, [Direction("c", "keys")], "cannot be named 'keys'"),
        (
            {"mla": KVGeometry((LayerGeometry(1, 8, 4, True),)), "c": SHARER},
            [Direction("mla", "c")],
            "'mla' has latent attention",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:40],
)
def test_impossible_hubs_are_named(models: dict[str, KVGeometry], directions: list[Direction], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        new_hub(directions, models)


def test_a_direction_without_trained_parts_is_named() -> None:
    hub = new_hub([Direction("llama", "qwen")])
    with pytest.raises(FuserConfigError, match="'mixed' has no encoder"):
        hub.pair(Direction("mixed", "qwen"))
    with pytest.raises(FuserConfigError, match="'mixed' has no decoder"):
        hub.pair(Direction("llama", "mixed"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"kind": "c2c"}, "of kind `hub`, not 'c2c'"), ({"kind": "hub", "layer_map": [[0]]}, "belong to one pair")],
    ids=str,
)
def test_settings_of_a_single_pair_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        HubFuser(MODELS, FuserConfig(**choices), [Direction("llama", "qwen")])


def test_directions_are_read_from_text() -> None:
    assert Direction.parse("llama_to_qwen") == Direction("llama", "qwen")
    for text in ("llama", "_to_qwen", "llama_to_"):
        with pytest.raises(FuserConfigError, match="SHARER_to_RECEIVER"):
            Direction.parse(text)


def test_exported_pair_is_built_like_any_fuser() -> None:
    pair = new_hub().pair(Direction("mixed", "llama"))
    again = Fuser(pair.receiver_geometry, pair.sharer_geometries, pair.config)
    again.load_state_dict(pair.state_dict(), strict=True)
