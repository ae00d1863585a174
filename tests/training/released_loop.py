"""The released training loop on plain models, written out from its description: one network per layer, no packing.

Nothing of the package computes here; only names of tensors are translated, so that both sides can begin alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import DynamicCache

from c2c_lightning.data.batch import TokenBatch, TrainingBatch

Weights = dict[str, Tensor]
"""One projector's tensors under the authors' names."""


@dataclass(frozen=True)
class Recipe:
    """Numbers of a run.

    Attributes:
        steps: optimizer steps.
        accumulate: micro batches per step.
        lr: highest learning rate.
        weight_decay: of every parameter.
        warmup: share of the steps in which the rate rises.
        max_grad_norm: gradients are scaled down to this norm.
        temperatures: first and last gate temperature.
        anneal_steps: steps between them.
        has_noise: Gumbel noise on the gates, or hard gates.
        seed: of the noise.
    """

    steps: int
    accumulate: int = 2
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    temperatures: tuple[float, float] = (1.0, 0.001)
    anneal_steps: int = 1929
    has_noise: bool = True
    seed: int = 0


@dataclass
class Run:
    """What a run shows of itself.

    Attributes:
        losses: of each micro batch.
        norms: gradient norm of each step, before clipping.
        rates: learning rate of each step.
        temperatures: gate temperature in each micro batch.
        weights: of each sharer's projectors at the end, by receiver layer.
        evaluation: loss on the evaluation batches, after training.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    weights: list[dict[int, Weights]] = field(default_factory=list)
    evaluation: float = 0.0


class ReleasedTraining:
    """Receiver, sharers that read the same tokens, and for each sharer one projector per receiver layer."""

    def __init__(self, receiver: nn.Module, sharers: Sequence[nn.Module], start: Sequence[dict[int, Weights]]) -> None:
        """Begin with `start`: for each sharer the projectors' weights by receiver layer."""
        self.receiver, self.sharers = receiver, sharers
        self.projectors = [
            {n: {name: t.clone().requires_grad_() for name, t in w.items()} for n, w in sharer.items()}
            for sharer in start
        ]
        self.temperature: float | None = None
        self.has_noise = False

    def train(
        self, epochs: Sequence[Sequence[TrainingBatch]], held_out: Sequence[TrainingBatch], recipe: Recipe
    ) -> Run:
        """Train on micro batches and evaluate."""
        run, step = Run(), 0
        parameters = [t for sharer in self.projectors for w in sharer.values() for t in w.values()]
        optimizer = AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        scheduler = LambdaLR(optimizer, lambda n: rate_at(n, recipe))
        self.temperature, self.has_noise = recipe.temperatures[0], recipe.has_noise
        torch.manual_seed(recipe.seed)
        for batches in epochs:
            for number, batch in enumerate(batches, 1):
                run.temperatures.append(self.temperature)
                loss = self.loss(batch)
                (loss / recipe.accumulate).backward()
                run.losses.append(float(loss))
                # The last window of an epoch may be shorter; its losses are divided by the same count.
                if number % recipe.accumulate and number < len(batches):
                    continue
                norm = nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
                run.norms.append(float(norm))
                run.rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                step += 1
                self.temperature = temperature_after(step, recipe)
        self.has_noise = False
        with torch.no_grad():
            run.evaluation = float(torch.stack([self.loss(batch) for batch in held_out]).mean())
        run.weights = [
            {n: {k: t.detach() for k, t in w.items()} for n, w in sharer.items()} for sharer in self.projectors
        ]
        return run

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Mean cross-entropy of the labelled tokens, in two sections, each padded on the right by itself."""
        device = next(self.receiver.parameters()).device
        first, second = (section.to(device) for section in sections(batch))
        clean = entries(self.receiver, first)
        fused = clean
        for number, sharer in enumerate(self.sharers):
            fused = self.fuse(self.projectors[number], fused, entries(sharer, first))
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(fused):
            cache.update(keys, values, layer)
        output = self.receiver(
            input_ids=second.ids,
            attention_mask=torch.cat([first.mask, second.mask], 1),
            position_ids=second.positions,
            past_key_values=cache,
        )
        # The first token of the section is the prompt's last one.
        labels = second.ids.masked_fill(second.mask == 0, -100)[:, 1:]
        return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)

    def fuse(
        self,
        projectors: Mapping[int, Weights],
        receiver: list[tuple[Tensor, Tensor]],
        sharer: list[tuple[Tensor, Tensor]],
    ) -> list[tuple[Tensor, Tensor]]:
        """Fused keys and values, layer by layer; the last layers of both models belong together."""
        fused = []
        for layer, mine in enumerate(receiver):
            theirs = sharer[min(max(len(sharer) - len(receiver) + layer, 0), len(sharer) - 1)]
            weights = projectors[layer]
            gates = [
                self.gate(weights[f"{side}_gate_logit"], own) for side, own in zip(("key", "value"), mine, strict=True)
            ]
            keys, values = (
                own + gate * residual(weights, side, own, their)
                for side, own, their, gate in zip(("key", "value"), mine, theirs, gates, strict=True)
            )
            fused.append((keys, values))
        return fused

    def gate(self, logit: Tensor, own: Tensor) -> Tensor:
        """How far a gate is open; `own` is (batch, kv_heads, tokens, head_dim)."""
        if not self.has_noise:
            return (logit > 0).float()
        uniform = torch.rand(*own.shape[:3], 1, device=own.device, dtype=own.dtype)
        noise = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
        return torch.sigmoid((logit + noise) / self.temperature)


@dataclass(frozen=True)
class Section:
    """Tokens of a batch, padded on the right; positions are those of the rows alone, 0 in padding."""

    ids: Tensor
    mask: Tensor
    positions: Tensor

    def to(self, device: torch.device) -> "Section":
        """The same section on another device."""
        return Section(self.ids.to(device), self.mask.to(device), self.positions.to(device))


def sections(batch: TrainingBatch) -> tuple[Section, Section]:
    """The prompts but their last tokens, and these with the responses."""
    prompts, responses = real_tokens(batch.prompt.receiver), masked(batch.response_ids, batch.response_mask)
    assert all(real_tokens(sharer) == prompts for sharer in batch.prompt.sharers)
    lengths = [len(prompt) - 1 for prompt in prompts]
    first = section([prompt[:-1] for prompt in prompts], [0] * len(prompts))
    return first, section([p[-1:] + r for p, r in zip(prompts, responses, strict=True)], lengths)


def real_tokens(tokens: TokenBatch) -> list[list[int]]:
    return masked(tokens.input_ids, tokens.mask.bool())


def masked(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


def section(rows: list[list[int]], begins: list[int]) -> Section:
    """Rows of token ids that begin at some positions."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    positions = (torch.arange(width) + torch.tensor(begins)[:, None]) * mask
    return Section(ids, mask, positions)


@torch.no_grad()
def entries(model: nn.Module, section: Section) -> list[tuple[Tensor, Tensor]]:
    """A model's keys and values of a section."""
    cache = DynamicCache()
    model(input_ids=section.ids, attention_mask=section.mask, position_ids=section.positions, past_key_values=cache)
    return [(layer.keys, layer.values) for layer in cache.layers]


def residual(weights: Weights, side: str, own: Tensor, their: Tensor) -> Tensor:
    """Weight times projection of keys or values, (batch, kv_heads, tokens, head_dim)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{side}_{name}.weight"], weights.get(f"{side}_{name}.bias"))

    def block(name: str, x: Tensor) -> Tensor:
        name = f"{name}.blocks.0"
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weights[f"{side}_{name}.norm.weight"]
        return x + linear(f"{name}.w2", F.gelu(linear(f"{name}.w1", normed)))

    read = torch.cat([kv.transpose(1, 2).flatten(2) for kv in (their, own)], -1)
    hidden = block("mlp1", linear("in", read))
    projected = linear("proj_out", block("proj_mlp2", hidden)).unflatten(-1, (own.shape[1], own.shape[3]))
    weight = torch.sigmoid(linear("scalar_head", block("scalar_mlp2", hidden)))
    return (weight[..., None] * projected).transpose(1, 2)


def rate_at(step: int, recipe: Recipe) -> float:
    """Share of the highest learning rate in an optimizer step, counted from 0."""
    warmup = int(recipe.warmup * recipe.steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (recipe.steps - step) / (recipe.steps - warmup))


def temperature_after(step: int, recipe: Recipe) -> float:
    """Gate temperature after so many optimizer steps."""
    first, last = recipe.temperatures
    return float(first * (last / first) ** min(step / recipe.anneal_steps, 1.0))
