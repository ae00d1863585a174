"""Content controls: C2C with something in the sharer's place that cannot help, on the same questions.

For some fusers the cache of another example helps as much as the right one; the gain is then the fuser's capacity and
not communication. C2C has to beat `mismatched` to have communicated.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, SharerTokens
from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.mismatch import swap_sharers
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.mismatched import DonorPool, seed_of
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.c2c_responder import C2CResponder, SomeSharers
from c2c_lightning.responders.option_scoring import OptionScores
from c2c_lightning.responders.question_views import ViewOf, plain_view
from c2c_lightning.responders.single_model import ReceiverOnly

# --- another question's cache -----------------------------------------------------------------------------------------


class Mismatched(C2CResponder):
    """The sharer reads another question of like length, the donor.

    The receiver's k-th fused token from the end reads the donor's k-th fused token from the end, or the donor's first
    where the donor is shorter.
    """

    def __init__(
        self,
        model: C2CModel,
        pool: DonorPool,
        draw: int = 0,
        view: ViewOf = plain_view,
        name: str = "c2c:mismatched",
        measure_latency: bool = False,
    ) -> None:
        """Take a fused model and the questions that donors are drawn from.

        Args:
            model: receiver, sharers and fuser.
            pool: finds donors.
            draw: number of the draw; each gives every question another donor.
            view: finds what sharers are shown.
            name: how to call it in reports.
            measure_latency: as for C2C.
        """
        super().__init__(model, view, name, measure_latency)
        self.pool, self.draw = pool, draw

    def donors(self, conversations: Sequence[Conversation]) -> list[int]:
        """The pool's rows whose caches are read instead."""
        return [self.pool.donor(conversation, self.draw) for conversation in conversations]

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The receiver's own prompts, with the donors' tokens for the sharers."""
        donors = [self.pool.conversations[row] for row in self.donors(conversations)]
        return swap_sharers(super().encode(conversations), super().encode(donors))


# --- the own cache, spoilt --------------------------------------------------------------------------------------------


class Shuffled(C2CResponder):
    """Each fused token reads the sharer at the place of another one: the content is there, its order is not."""

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts with permuted source indices."""
        prompt = super().encode(conversations)
        sharers = tuple(self._shuffle(sharer, conversations) for sharer in prompt.sharers)
        return PromptBatch(prompt.receiver, sharers)

    def _shuffle(self, sharer: SharerTokens, conversations: Sequence[Conversation]) -> SharerTokens:
        index = sharer.index.clone()
        for row, conversation in enumerate(conversations):
            fused = (index[row] >= 0).nonzero()[:, 0]
            generator = torch.Generator().manual_seed(seed_of(conversation, "shuffled"))
            index[row, fused] = index[row, fused[torch.randperm(len(fused), generator=generator)]]
        return replace(sharer, source_index=index)


class Zero(C2CResponder):
    """Sharer caches of zeros."""

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Zeros of the right shapes."""
        return [_each(stack, _zeros) for stack in super().sharer_kv(prompt, conversations)]


class Noise(C2CResponder):
    """Sharer caches of Gaussian noise with the mean and spread that each layer and head has on this prompt."""

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Noise like the real caches."""
        stacks = super().sharer_kv(prompt, conversations)
        seeds = [seed_of(conversation, "noise") for conversation in conversations]
        return [
            None if stack is None else noise_like(stack, read_tokens(sharer), seeds)
            for stack, sharer in zip(stacks, prompt.sharers, strict=True)
        ]


def read_tokens(sharer: SharerTokens) -> Tensor:
    """The real tokens of a sharer up to the last one that its row reads, (batch, tokens).

    What follows is run only if another row of the batch reads it, so it must not count.
    """
    column = torch.arange(sharer.input_ids.shape[1], device=sharer.index.device)
    return sharer.mask.bool() & (column <= sharer.index.max(1, keepdim=True).values)


def noise_like(stack: LayerStack, real: Tensor, seeds: Sequence[int]) -> LayerStack:
    """Gaussian noise with a cache's mean and standard deviation per row, layer and head.

    Args:
        stack: the cache.
        real: (batch, tokens or more), True for the tokens that the statistics are of.
        seeds: one for each row.
    """
    real = real[:, : stack[0].num_tokens]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noisy(tensor: Tensor) -> Tensor:
        inside = real[:, None, :, None]
        draws = torch.stack([_draw(tensor, row, g) for row, g in zip(real, generators, strict=True)]).to(tensor.device)
        count = (inside.sum((2, 3), keepdim=True) * tensor.shape[3]).clamp(min=1)
        mean = (tensor.float() * inside).sum((2, 3), keepdim=True) / count
        variance = ((tensor.float() - mean) ** 2 * inside).sum((2, 3), keepdim=True) / count
        return (mean + variance.sqrt() * draws).to(tensor.dtype)

    return [LayerKV(noisy(layer.keys), noisy(layer.values)) for layer in stack]


def _draw(tensor: Tensor, real: Tensor, generator: torch.Generator) -> Tensor:
    """Draws for one row, (kv_heads, tokens, head_dim), the same for its real tokens however they are padded."""
    _, heads, tokens, dim = tensor.shape
    place, count = real.nonzero()[:, 0].cpu(), int(real.sum())
    draws = torch.zeros(tokens, heads, dim)
    draws[place] = torch.randn(count, heads, dim, generator=generator)
    return draws.movedim(0, 1)


def _zeros(layer: LayerKV) -> LayerKV:
    return LayerKV(torch.zeros_like(layer.keys), torch.zeros_like(layer.values))


def _each(stack: LayerStack | None, change: Any) -> LayerStack | None:
    return None if stack is None else [change(layer) for layer in stack]


# --- nothing fused ----------------------------------------------------------------------------------------------------


class ReceiverInSteps(ReceiverOnly):
    """The receiver alone, reading each prompt in the steps that fusion takes.

    Several passes round otherwise than one, so that in half precision a word may differ; against this one, closed gates
    must not differ in a bit.
    """

    def __init__(self, model: C2CModel, view: ViewOf, name: str, measure_latency: bool = False) -> None:
        """Take the fused model whose receiver it is."""
        super().__init__(model.receiver, name, measure_latency)
        self.fused = C2CResponder(model, view)

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts, with what is fused in them."""
        return self.fused.encode(conversations).to(self.lm.device)

    @torch.no_grad()
    def prefill(self, prompt: PromptBatch) -> LayerStack:
        """The receiver's cache, up to each round of fusion and then to the end."""
        model, last = self.fused.model, prompt.num_receiver_tokens - 1
        self.lm.check_length(prompt.num_receiver_tokens)
        state = model.fuse_prompt(prompt, [None] * len(model.sharers))
        return state.prefill(model.receiver, until=last).unfused_kv

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option, in the passes of C2C without any sharer."""
        if not self.fused.model.mode.fuses_last_prompt_token:
            return super().score(conversations, options)
        fused = self.fused
        return SomeSharers(fused.model, (), fused.view, self.name, self.measure_latency).score(conversations, options)


class GatesClosed(C2CResponder):
    """All gates closed: must be the receiver alone, token for token and bit for bit."""

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer with the gates closed."""
        with closed_gates(self.model.fuser):
            return super().respond(conversations, **generate_kwargs)

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Score with the gates closed."""
        with closed_gates(self.model.fuser):
            return super().score(conversations, options)


@contextmanager
def closed_gates(fuser: Fuser) -> Iterator[None]:
    """Closes all gates of a fuser as long as the context lasts.

    Raises:
        BenchmarkError: the fuser has no gates (ablations).
    """
    logits = [gate.logit for _, _, *gates in fuser.gates() for gate in gates]
    if not logits:
        raise BenchmarkError(
            f"the control `gates_closed` needs gates, but a fuser of kind {fuser.config.kind} has none."
        )
    kept = [logit.detach().clone() for logit in logits]
    fuser.force_gates(is_open=False)
    try:
        yield
    finally:
        with torch.no_grad():
            for logit, value in zip(logits, kept, strict=True):
                logit.copy_(value)
