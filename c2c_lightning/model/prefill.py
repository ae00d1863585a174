"""Reading prompts for generation: round by round (Eq. 3), from where a kept prompt ends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.prefix_match import PrefixMatch, joined, put

if TYPE_CHECKING:
    from c2c_lightning.model.c2c import C2CModel


def read_prompt(
    model: "C2CModel",
    prompt: PromptBatch,
    active_sharers: Sequence[int] | None = None,
    sharer_kv: SharerKV | None = None,
    prefix: FusedPrompt | None = None,
) -> FusedPrompt:
    """Read prompts, fusing their spans; `C2CModel.fuse_spans` in small steps that a kept prompt may have done already.

    Args:
        model: the fused model.
        prompt: the prompts, on the receiver's device.
        active_sharers: numbers of the sharers that take part, default all.
        sharer_kv: caches to use instead of running the sharers.
        prefix: a prompt that was read before. Only what the new prompts do not share with it is run.
    """
    rounds = model.mode.rounds(prompt, model.fuser.config)
    made_by = None if sharer_kv is not None else _dependencies(model, active_sharers)
    known = None if prefix is None else prefix.match_prefix(prompt, rounds, made_by)
    if sharer_kv is None:
        # Sharers and receiver do not wait for each other until the first span is fused.
        started = model.start_sharers(prompt, active_sharers, known)
    reading = _Reading(model, prompt, known)
    reading.run_to(rounds[0].end if rounds else prompt.num_receiver_tokens - 1)
    if sharer_kv is None:
        sharer_kv = [None if run is None else run.result() for run in started]
    for fusion in rounds:
        reading.run_to(fusion.end)
        reading.fuse(fusion, sharer_kv)
    reading.run_to(prompt.num_receiver_tokens - 1)
    return FusedPrompt(prompt, rounds, list(sharer_kv), reading.plain, reading.fused, made_by)


class _Reading:
    """A receiver's cache while a prompt is read.

    Attributes:
        plain: its entries before their own round.
        fused: its entries as they are read: fused up to the last round, plain after it.
    """

    def __init__(self, model: "C2CModel", prompt: PromptBatch, known: PrefixMatch | None) -> None:
        self.model, self.prompt, self.known = model, prompt, known
        self.plain: LayerStack = model.receiver.empty_kv(len(prompt)) if known is None else known.plain
        self.fused = self.plain

    def run_to(self, end: int) -> None:
        """Let the receiver read on."""
        done = self.plain[0].num_tokens
        if end > done:
            self.fused = self.model.prefill_receiver(self.prompt, self.fused, end)
            self.plain = joined(self.plain, [layer.tokens(done) for layer in self.fused])

    def fuse(self, fusion: FusionStep, sharer_kv: SharerKV) -> None:
        """Fuse the tokens of a round, or take what is known of them."""
        if self.known is not None:
            before, fusion = fusion.split(self.known.num_fused)
            self.fused = put(self.fused, self.known.fused, before)
        if any(len(read) for read in fusion.fused_tokens):
            self.fused = self.model.fuser(self.fused, sharer_kv, fusion)


def _dependencies(model: "C2CModel", active_sharers: Sequence[int] | None) -> Any:
    """What entries depend on besides tokens: the models, the fuser's choices, and its weights' state; or None."""
    if model.fuser.training:  # dropout and gate noise: nothing comes out twice
        return None
    weights = tuple((weight.data_ptr(), weight._version) for weight in model.fuser.parameters())
    models = tuple(id(lm.model) for lm in (model.receiver, *model.sharers))
    active = None if active_sharers is None else tuple(sorted(set(active_sharers)))
    return models, model.fuser.config, active, weights
