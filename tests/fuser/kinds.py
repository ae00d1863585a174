"""What every fuser kind is tested with: small caches, an open fuser, gradients against finite differences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack

RECEIVER = KVGeometry((LayerGeometry(2, 4, 4),) * 3)
SHARER = KVGeometry((LayerGeometry(3, 6, 6),) * 4)
# Layers of two shapes, as in hybrids: several stacks.
HYBRID = KVGeometry((LayerGeometry(2, 4, 4), LayerGeometry(1, 6, 4), LayerGeometry(2, 4, 4)))
STEP = FusionStep(1, 4, (FusedTokens(torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2]), torch.tensor([4, 0, 2])),))
"""Three fused tokens in two rows."""


OneToken = tuple[Tensor, Tensor]
"""Keys and values of one token of one layer, (kv_heads, width) each."""

SlowResidual = Callable[[Any, int, OneToken, OneToken], OneToken]
"""Given a stack, a place in it, and the receiver's and the sharer's entries: the residual of one token."""


def entries_of(geometry: KVGeometry, tokens: int, seed: int, batch: int = 2) -> LayerStack:
    """A random cache."""
    g = torch.Generator().manual_seed(seed)

    def entries(heads: int, dim: int) -> Tensor:
        return torch.randn(batch, heads, tokens, dim, generator=g)

    return [LayerKV(entries(x.kv_heads, x.key_dim), entries(x.kv_heads, x.value_dim)) for x in geometry.layers]


def make(receiver: KVGeometry = RECEIVER, sharer: KVGeometry = SHARER, **choices: Any) -> Fuser:
    """A fuser in evaluation mode with open gates; no weight is at its trivial start."""
    torch.manual_seed(0)
    fuser = Fuser(
        receiver, [sharer], FuserConfig(**{"hidden_dim": 8, "intermediate_dim": 6, "dropout": 0.0, **choices})
    )
    with torch.no_grad():
        for parameter in fuser.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    fuser.force_gates(is_open=True)
    return fuser.eval()


def check_twin(fuser: Fuser, slow_residual: SlowResidual, step: FusionStep = STEP) -> None:
    """The stacked fuser against a loop over layers and tokens."""
    receiver, part = fuser.receiver_geometry, fuser.sharers[0]
    mine, theirs = entries_of(receiver, 5, 1), entries_of(fuser.sharer_geometries[0], 6, 2)
    expected = [LayerKV(layer.keys.clone(), layer.values.clone()) for layer in mine]
    tokens = step.fused_tokens[0]
    for n, m in enumerate(part.layer_map):
        number, place = part.place_of(n)
        for row, token, source in zip(tokens.row.tolist(), tokens.token.tolist(), tokens.source.tolist(), strict=True):
            own = mine[n].keys[row, :, token], mine[n].values[row, :, token]
            other = theirs[m].keys[row, :, source], theirs[m].values[row, :, source]
            keys, values = slow_residual(part.groups[number], place, own, other)
            expected[n].keys[row, :, token] += keys
            expected[n].values[row, :, token] += values
    for layer, twin in zip(fuser(mine, [theirs], step), expected, strict=True):
        torch.testing.assert_close(layer.keys, twin.keys)
        torch.testing.assert_close(layer.values, twin.values)


def double(layers: LayerStack) -> LayerStack:
    """The cache in float64."""
    return [LayerKV(layer.keys.double(), layer.values.double()) for layer in layers]


def check_finite_differences(fuser: Fuser, step: FusionStep = STEP, sharer: LayerStack | None = None) -> None:
    """Gradients of some weights of every tensor, gates excepted, against central differences in float64."""
    fuser = fuser.double()
    mine = double(entries_of(fuser.receiver_geometry, 5, 1))
    theirs = double(entries_of(fuser.sharer_geometries[0], 6, 2)) if sharer is None else double(sharer)
    weight = [torch.randn_like(layer.keys) for layer in mine], [torch.randn_like(layer.values) for layer in mine]

    def objective() -> Tensor:
        fused = fuser(mine, [theirs], step)
        sides = ([layer.keys for layer in fused], [layer.values for layer in fused])
        return sum(
            ((w * x).sum() for of, xs in zip(weight, sides, strict=True) for w, x in zip(of, xs, strict=True)),
            torch.zeros(()),
        )

    objective().backward()
    gates = {id(p) for _, _, *pair in fuser.gates() for gate in pair for p in gate.parameters()}
    generator, width = torch.Generator().manual_seed(3), 1e-6
    for name, parameter in fuser.named_parameters():
        if id(parameter) in gates:
            continue
        assert parameter.grad is not None, name
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in torch.randperm(len(flat), generator=generator)[:3].tolist():
            start = flat[index].item()
            values = []
            for shift in (width, -width):
                flat[index] = start + shift
                with torch.no_grad():
                    values.append(objective())
            flat[index] = start
            expected = (values[0] - values[1]) / (2 * width)
            torch.testing.assert_close(
                gradient[index], expected, atol=1e-7, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
