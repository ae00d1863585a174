"""Fusion modes: which tokens are fused, and in which forward pass. One class for each mode."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fusion_plan import FusionStep, TokenPositions
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.errors import PairMismatchError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.cache import NewEntries, dynamic_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.model.decode_cache import DecodeCache, with_response
from c2c_lightning.model.fused_model import FusedModel, ResponseCore
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.last_token_cache import LastTokenCache
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.model.response_prefix import ResponsePrefix


@runtime_checkable
class FusionMode(Protocol):
    """Which tokens are fused, and in which forward pass."""

    fuses_last_prompt_token: bool
    """Whether the last prompt token is fused, so that sharers process their whole prompts."""

    fuses_response: bool
    """Whether response tokens are fused, so that the cache they attend to depends on them."""

    replaces_receiver: bool
    """Whether the receiver does not process fused tokens, so that it has no entries of its own for them."""

    def plan(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """The fusion steps of a prompt, in order."""
        ...

    def prefill(self, core: FusedModel, state: PrefillState, sharer_kv: SharerKV, step: FusionStep) -> PrefillState:
        """The receiver's cache up to the end of a step, whose tokens are fused next."""
        ...

    def num_sharer_tokens(self, prompt: PromptBatch) -> Sequence[int]:
        """For each sharer the number of its leading columns that are prefilled."""
        ...

    def generation_cache(self, core: FusedModel, fused: FusedPrompt) -> Cache:
        """The cache over all prompt tokens but the last, for transformers' `generate`."""
        ...

    def response_prefix(
        self,
        core: ResponseCore,
        prompt: PromptBatch,
        sharer_kv: SharerKV,
        response: TokenBatch,
    ) -> ResponsePrefix:
        """The cache that a teacher-forced response pass attends to.

        Args:
            core: receiver, sharers and fuser.
            prompt: the prompts.
            sharer_kv: the sharers' caches over their prompts.
            response: the response tokens that will be run, right padded.
        """
        ...


class PrefillFusion:
    """The paper: prompt tokens are fused, never the last one; all later tokens attend to the fused cache."""

    fuses_last_prompt_token = False
    fuses_response = False
    replaces_receiver = False

    def plan(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """Span by span as released, or all spans of a row at once."""
        return prompt.plan.one_pass if config.span_order == "one_pass" else prompt.fusion_plan

    def prefill(self, core: FusedModel, state: PrefillState, sharer_kv: SharerKV, step: FusionStep) -> PrefillState:
        """The receiver processes all tokens."""
        return state.prefill(core.receiver, until=step.end)

    def num_sharer_tokens(self, prompt: PromptBatch) -> Sequence[int]:
        """The columns that receiver tokens read."""
        return prompt.plan.num_read_tokens

    def generation_cache(self, core: FusedModel, fused: FusedPrompt) -> Cache:
        """A plain growing cache."""
        return dynamic_cache(fused.fused_kv, fused.states)

    def response_prefix(
        self,
        core: ResponseCore,
        prompt: PromptBatch,
        sharer_kv: SharerKV,
        response: TokenBatch,
    ) -> ResponsePrefix:
        """The fused cache up to the end of the last span."""
        state = core.fuse_prompt(prompt, sharer_kv)
        return ResponsePrefix(state.fused_kv, states=state.states)


class ReplacementFusion(PrefillFusion):
    """As `PrefillFusion`, but the receiver does not process the fused tokens: the fuser gives it all their entries.

    For kinds that read the sharer alone (`FuserKind.reads_receiver`), of one sharer. The answers are those of mode
    `prefill` with `span_order: sectioned`; a receiver pass over the fused tokens is saved.
    """

    replaces_receiver = True

    def plan(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """Span by span: there is no other prefill that `one_pass` could fuse."""
        return prompt.fusion_plan

    def prefill(self, core: FusedModel, state: PrefillState, sharer_kv: SharerKV, step: FusionStep) -> PrefillState:
        """The receiver processes the tokens that are not fused.

        In a batch that includes fused tokens to the left of the last unfused one of any row: one block of columns.
        """
        check_replacement(core)
        if sharer_kv[0] is None or step.unfused_end is None:
            return super().prefill(core, state, sharer_kv, step)
        return state.prefill(core.receiver, until=step.unfused_end).skip(step.end)


class PromptFusion(PrefillFusion):
    """The last prompt token is fused too, in the pass that computes its entries.

    A sharer that retrieves a fact only at the end of the prompt has no information to share before that token.
    """

    fuses_last_prompt_token = True

    def num_sharer_tokens(self, prompt: PromptBatch) -> Sequence[int]:
        """All columns."""
        return [tokens.input_ids.shape[1] for tokens in prompt.sharers]

    def generation_cache(self, core: FusedModel, fused: FusedPrompt) -> Cache:
        """A growing cache that fuses the first token that it is given."""
        last, positions = last_tokens(fused.sharer_kv), last_positions(fused.prompt)
        return LastTokenCache(core.fuser.split(), fused.fused_kv, last, positions, fused.states)

    def response_prefix(
        self,
        core: ResponseCore,
        prompt: PromptBatch,
        sharer_kv: SharerKV,
        response: TokenBatch,
    ) -> ResponsePrefix:
        """The fused cache; the pass itself fuses the column of the last prompt token."""
        state, last = core.fuse_prompt(prompt, sharer_kv), last_tokens(sharer_kv)
        # The weights are split into layers once: the backward pass of a slice per layer fills a gradient of the stack.
        column, fuser = prompt.num_receiver_tokens - 1 - state.num_tokens, core.fuser.split()
        positions = last_positions(prompt)

        def edit_rows(rows: Tensor) -> NewEntries:
            of_rows = [None if kv is None else [layer.rows(rows) for layer in kv] for kv in last]
            their_positions = positions.rows(rows)

            def edit(layer: int, new: LayerKV) -> LayerKV:
                fused = fuser.fuse_new(layer, new.tokens(column, column + 1), of_rows, their_positions)
                return new.tokens(0, column).append(fused).append(new.tokens(column + 1))

            return edit

        return ResponsePrefix(state.fused_kv, edit_rows, state.states)


class DecodeFusion(PromptFusion):
    """Response tokens are fused too, as the released code's `include_response`, for any architecture.

    Receiver and sharers process the whole text without fused entries. Every token is fused from these entries, and the
    pass that computes the logits attends to the fused entries, those of its own tokens included.
    """

    fuses_response = True

    def plan(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """All spans after one prefill: no entry is computed on fused ones."""
        # The receiver prefills the whole prompt before the first step, so no entry depends on a fused one.
        return tuple(replace(step, end=prompt.num_receiver_tokens - 1) for step in prompt.plan.one_pass)

    def generation_cache(self, core: FusedModel, fused: FusedPrompt) -> Cache:
        """A growing cache that runs the unfused models along with the response."""
        return DecodeCache(core.receiver, core.sharers, core.fuser, fused)

    def response_prefix(
        self,
        core: ResponseCore,
        prompt: PromptBatch,
        sharer_kv: SharerKV,
        response: TokenBatch,
    ) -> ResponsePrefix:
        """All fused entries are known before the pass, which replaces its own by them."""
        text = with_response(core.receiver, core.sharers, prompt, response)
        begin = prompt.num_receiver_tokens - 1
        start = PrefillState.empty(core.receiver, text.receiver)
        if core.receiver.layout is not None:  # the fused pass continues from the clean states at its first token
            start = start.prefill(core.receiver, until=begin)
        fused_kv = core.fuse_prompt(text, core.continue_sharers(text, sharer_kv), start).fused_kv

        def edit_rows(rows: Tensor) -> NewEntries:
            return lambda layer, new: fused_kv[layer].tokens(begin, begin + new.num_tokens).rows(rows)

        return ResponsePrefix([layer.tokens(0, begin) for layer in fused_kv], edit_rows, start.states)


MODES: dict[str, FusionMode] = {
    "prefill": PrefillFusion(),
    "replace": ReplacementFusion(),
    "prompt": PromptFusion(),
    "decode": DecodeFusion(),
}


def check_replacement(core: FusedModel) -> None:
    """Refuse models whose receiver has to process fused tokens itself.

    Raises:
        PairMismatchError: several sharers, layers without a partner, or a receiver with states.
    """
    unfused = [n for n, m in enumerate(core.fuser.sharers[0].layer_map) if m is None]
    reason = (
        f"there are {len(core.sharers)} sharers, and tokens of one that is left out would have no entries"
        if len(core.sharers) > 1
        else f"receiver layers {unfused} are not fused, so their entries have to be computed"
        if unfused
        else f"{core.receiver.spec.path} has states after each token besides its cache"
        if core.receiver.layout is not None
        else None
    )
    if reason:
        raise PairMismatchError(f"`fusion_mode: replace` is not possible: {reason}. Set `fusion_mode: prefill`.")


def last_tokens(sharer_kv: SharerKV) -> list[LayerStack | None]:
    """Each sharer's entries of its last prompt token."""
    return [None if kv is None else [layer.tokens(-1) for layer in kv] for kv in sharer_kv]


def last_positions(prompt: PromptBatch) -> TokenPositions:
    """Position ids of the last token of each model's prompt."""
    return TokenPositions(prompt.receiver.positions[:, -1:], tuple(s.positions[:, -1:] for s in prompt.sharers))
