"""Prefill with fusion, in parts, against the prefills that it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.kv.cache import CACHE_ARGUMENT
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.profiling.benchmark import BenchContext, Result, smallest_vocabulary
from c2c_lightning.profiling.flops import forward, fuse, prefill
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.timing import Work, interleaved, median_ratio
from c2c_lightning.profiling.workload import equal_batch


@dataclass(frozen=True)
class PrefillLatency:
    """From prompts to the logits of the first new token: with fusion, and by each model alone.

    Attributes:
        prompt_tokens: length of each prompt, in tokens.
        batch_size: prompts.
        rounds: how often everything is timed.
    """

    prompt_tokens: int = 256
    batch_size: int = 1
    rounds: int = 15
    name: str = "prefill"

    @torch.no_grad()
    def run(self, bench: BenchContext) -> Result:
        """Time all parts alternately."""
        model = bench.build()
        vocab = smallest_vocabulary(model)
        prompt = equal_batch(self.batch_size, self.prompt_tokens, 1, vocab, len(model.sharers)).prompt
        prompt = prompt.to(bench.device)
        works = {"with_fusion": lambda: first_logits(model, prompt), **_parts(model, prompt), **_alone(model, prompt)}
        times = interleaved(works, self.rounds, bench.progress(self.rounds))
        alone = [name for name in works if name.endswith("_alone")]
        return {
            "prompt_tokens": self.prompt_tokens,
            "batch_size": self.batch_size,
            "seconds": {name: timed.seconds for name, timed in times.items()},
            "cpu_seconds": {name: timed.cpu_seconds for name, timed in times.items()},
            "ratio": median_ratio(times["with_fusion"].wall, _sums([times[name].wall for name in alone])),
            "ratio_by_cpu_time": median_ratio(times["with_fusion"].cpu, _sums([times[name].cpu for name in alone])),
            "ratio_of_needed_work": self._needed_ratio(model),
            "rounds": self.rounds,
        }

    def _needed_ratio(self, model: C2CModel) -> float:
        """Needed operations with fusion, over those of each model's prefill with one logit."""
        tokens, pair = self.prompt_tokens, PairShape.of(model)
        fused = sum(
            prefill(lm, tokens - 1, num_layers=fuser.sharer_layers) + fuse(fuser, tokens - 1)
            for lm, fuser in zip(pair.sharers, pair.fusers, strict=True)
        )
        if not pair.replaces_receiver:
            fused += prefill(pair.receiver, tokens - 1)
        fused += forward(pair.receiver, 1, tokens - 1, heads=1)
        return fused / sum(forward(lm, tokens, 0, heads=1) for lm in (pair.receiver, *pair.sharers))


def first_logits(model: C2CModel, prompt: PromptBatch) -> Tensor:
    """Logits of the first new token on the fused cache, (batch, 1, vocab)."""
    tokens = prompt.receiver
    logits: Tensor = model.receiver.model(
        input_ids=tokens.input_ids[:, -1:],
        attention_mask=tokens.mask,
        position_ids=tokens.positions[:, -1:],
        **{CACHE_ARGUMENT: model.fuse(prompt)},
    ).logits
    return logits


def _parts(model: C2CModel, prompt: PromptBatch) -> Mapping[str, Work]:
    """The parts of prefill with fusion, without the pass over the last token."""
    end, empty = prompt.num_receiver_tokens - 1, PrefillState.empty(model.receiver, prompt.receiver)
    sharer_kv, receiver_kv = model.prefill_sharers(prompt), empty.prefill(model.receiver, end).fused_kv
    return {
        "sharer_prefill": lambda: model.prefill_sharers(prompt),
        "receiver_prefill": lambda: empty.prefill(model.receiver, end).fused_kv,
        "fuser": lambda: model.fuser(receiver_kv, sharer_kv, prompt.plan.one_pass[0]),
    }


def _alone(model: C2CModel, prompt: PromptBatch) -> Mapping[str, Work]:
    """Each model's own prefill with one logit."""
    receiver, *sharers = own_prefills(model, prompt)
    return {"receiver_alone": receiver, **{f"sharer_{n}_alone": work for n, work in enumerate(sharers)}}


def own_prefills(model: C2CModel, prompt: PromptBatch) -> list[Work]:
    """The receiver's own prefill with one logit, then each sharer's, all of the receiver's tokens."""
    return [_own_prefill(lm, prompt) for lm in (model.receiver, *model.sharers)]


def _own_prefill(lm: FrozenLM, prompt: PromptBatch) -> Work:
    ids = prompt.receiver.input_ids.to(lm.device)
    return lambda: lm.model(input_ids=ids, use_cache=True, logits_to_keep=1)


def _sums(rounds: list[list[float]]) -> list[float]:
    return [sum(parts) for parts in zip(*rounds, strict=True)]
