"""Content controls: C2C whose sharers' caches cannot help, on the same questions.

For some fusers the cache of another example helps as much as the right one; the gain is then capacity of the fuser and
not communication. C2C communicates only if it beats `mismatched`.
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
from c2c_lightning.responders.base import Answer, OptionScores
from c2c_lightning.responders.c2c_responder import C2CResponder, SomeSharers
from c2c_lightning.responders.last_prefill import LastPrefill
from c2c_lightning.responders.phase_timer import PhaseTimer
from c2c_lightning.responders.question_prompt import QuestionPrompt


class Mismatched(C2CResponder):
    """The sharers read another question of similar length, the donor.

    The receiver's k-th fused token from the end reads the donor's k-th fused token from the end, or the donor's first
    where the donor is shorter. Each draw (a number from 0) gives a question another donor of the pool.
    """

    def __init__(
        self,
        model: C2CModel,
        pool: DonorPool,
        draw: int = 0,
        name: str = "c2c:mismatched",
        measure_latency: bool = False,
    ) -> None:
        super().__init__(model, name, measure_latency)
        self.pool, self.draw = pool, draw

    def donors(self, conversations: Sequence[Conversation]) -> list[int]:
        """The donors' rows in the pool."""
        return [self.pool.donor(QuestionPrompt.of(conversation), self.draw) for conversation in conversations]

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The receiver's own prompts, with the donors' tokens for the sharers."""
        # Both are encoded as a whole: a donor's tokens depend on its own alignment with its own receiver prompt.
        donors = [self.pool.prompts[row] for row in self.donors(conversations)]
        return swap_sharers(super().encode(conversations), super().encode(donors))


class OwnPromptControl(C2CResponder):
    """A control whose sharers read their own prompts, as those of C2C do.

    Args:
        model: receiver, sharers and fuser.
        name: name in reports.
        measure_latency: as for `C2CResponder`.
        last: the sharers' caches of the last batch, which several controls of the same questions share.
    """

    def __init__(
        self,
        model: C2CModel,
        name: str = "c2c",
        measure_latency: bool = False,
        last: LastPrefill | None = None,
    ) -> None:
        super().__init__(model, name, measure_latency)
        self.last = last or LastPrefill(model)

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """The sharers' caches, those of the last batch if it had the same prompts."""
        return self.last.prefill(prompt)

    def _prefill_sharers(
        self, conversations: Sequence[Conversation]
    ) -> tuple[PhaseTimer, PromptBatch, list[LayerStack | None]]:
        timer, prompt, kv = super()._prefill_sharers(conversations)
        # The time of a control does not depend on the controls before it.
        timer.seconds["prefill_sharer"] = max(timer.seconds["prefill_sharer"], self.last.seconds)
        return timer, prompt, kv


class Shuffled(OwnPromptControl):
    """Each fused token reads the sharer token of another one: same content, random order."""

    def encode(self, conversations: Sequence[Conversation]) -> PromptBatch:
        """The prompts with permuted source indices."""
        prompt = super().encode(conversations)
        sharers = [replace(sharer, source_index=_shuffled(sharer.index, conversations)) for sharer in prompt.sharers]
        return PromptBatch(prompt.receiver, tuple(sharers))


def _shuffled(source_index: Tensor, conversations: Sequence[Conversation]) -> Tensor:
    index = source_index.clone()
    for row, conversation in enumerate(conversations):
        fused = (index[row] >= 0).nonzero()[:, 0]
        generator = torch.Generator().manual_seed(seed_of(conversation, "shuffled"))
        index[row, fused] = index[row, fused[torch.randperm(len(fused), generator=generator)]]
    return index


class Zero(OwnPromptControl):
    """Sharer caches of zeros."""

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Zeros of the caches' shapes."""
        stacks = super().sharer_kv(prompt, conversations)
        return [None if stack is None else [_zeros(layer) for layer in stack] for stack in stacks]


def _zeros(layer: LayerKV) -> LayerKV:
    return layer.map(torch.zeros_like)


class Noise(OwnPromptControl):
    """Sharer caches of Gaussian noise with the mean and spread of each layer and head on this prompt."""

    def sharer_kv(self, prompt: PromptBatch, conversations: Sequence[Conversation]) -> list[LayerStack | None]:
        """Noise with the statistics of the real caches."""
        stacks = super().sharer_kv(prompt, conversations)
        seeds = [seed_of(conversation, "noise") for conversation in conversations]
        return [
            None if stack is None else noise_like(stack, read_tokens(sharer), seeds)
            for stack, sharer in zip(stacks, prompt.sharers, strict=True)
        ]


def read_tokens(sharer: SharerTokens) -> Tensor:
    """Mask of a sharer's real tokens up to the last one that its row reads, (batch, tokens).

    Later tokens are computed only if another row of the batch reads that far, so the statistics must exclude them.
    """
    column = torch.arange(sharer.input_ids.shape[1], device=sharer.index.device)
    return sharer.mask.bool() & (column <= sharer.index.max(1, keepdim=True).values)


def noise_like(stack: LayerStack, real: Tensor, seeds: Sequence[int]) -> LayerStack:
    """Gaussian noise with a cache's mean and standard deviation per row, layer and head.

    The statistics are those of the tokens in `real` (batch, tokens or more); each row has a seed of its own.
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

    return [layer.map(noisy) for layer in stack]


def _draw(tensor: Tensor, real: Tensor, generator: torch.Generator) -> Tensor:
    """Draws for one row, (kv_heads, tokens, head_dim), independent of the row's padding."""
    _, heads, tokens, dim = tensor.shape
    index, count = real.nonzero()[:, 0].cpu(), int(real.sum())
    draws = torch.zeros(tokens, heads, dim)
    # Tokens first and on the CPU: padding takes no draws, and all devices draw the same.
    draws[index] = torch.randn(count, heads, dim, generator=generator)
    return draws.movedim(0, 1)


class GatesClosed(OwnPromptControl):
    """All gates closed, compared with the same passes without any sharer: equal bit for bit, or the program is wrong.

    The report compares the answers with the bare receiver's too. There they may differ: the released token alignments
    shift the receiver's positions, and several prefill passes round otherwise than one.
    """

    def __init__(
        self,
        model: C2CModel,
        name: str = "c2c:gates_closed",
        measure_latency: bool = False,
        last: LastPrefill | None = None,
    ) -> None:
        super().__init__(model, name, measure_latency, last)
        require_gates(model.fuser)
        self.unfused = SomeSharers(model, (), name, measure_latency)

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer with closed gates."""
        # Sampling starts from the same random state twice.
        with closed_gates(self.model.fuser), fork_rng():
            answers = super().respond(conversations, **generate_kwargs)
        expected = self.unfused.respond(conversations, **generate_kwargs)
        return [replace(a, matches_unfused=a.text == e.text) for a, e in zip(answers, expected, strict=True)]

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Score with closed gates."""
        with closed_gates(self.model.fuser):
            scores = super().score(conversations, options)
        expected = self.unfused.score(conversations, options)
        pairs = zip(scores, expected, strict=True)
        return [replace(s, matches_unfused=s.log_probabilities == e.log_probabilities) for s, e in pairs]


def fork_rng() -> Any:
    """A context that restores the random state at its end."""
    return torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else [])


def require_gates(fuser: Fuser) -> None:
    """BenchmarkError for a fuser without gates (ablations)."""
    if not any(True for _ in fuser.gates()):
        raise BenchmarkError(
            f"the control `gates_closed` needs gates, but a fuser of kind {fuser.config.kind} has none. Remove "
            "`gates_closed` from `controls`."
        )


@contextmanager
def closed_gates(fuser: Fuser) -> Iterator[None]:
    """Closes all gates of a fuser inside the context."""
    logits = [gate.logit for _, _, *gates in fuser.gates() for gate in gates]
    kept = [logit.detach().clone() for logit in logits]
    fuser.force_gates(is_open=False)
    try:
        yield
    finally:
        with torch.no_grad():
            for logit, value in zip(logits, kept, strict=True):
                logit.copy_(value)
