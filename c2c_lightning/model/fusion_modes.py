"""What is fused, and in which pass: one class for each fusion mode."""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.cache import NewEntries, dynamic_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.model.decode_cache import DecodeCache, fuse_whole_text
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.last_token_cache import LastTokenCache
from c2c_lightning.model.response import Prefix

if TYPE_CHECKING:
    from c2c_lightning.model.c2c import C2CModel


@runtime_checkable
class FusionMode(Protocol):
    """How a fused model reads a prompt and goes on."""

    reads_whole_prompt: bool
    """Whether sharers run over their last prompt token too."""

    reads_response: bool
    """Whether the response's tokens are fused too, so that what it goes on from depends on them."""

    def rounds(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """What is fused together, in order, and up to where the receiver reads before."""
        ...

    def generation_cache(self, model: "C2CModel", read: FusedPrompt) -> Cache:
        """The cache over all prompt tokens but the last, for `generate`."""
        ...

    def response_prefix(
        self, model: "C2CModel", prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor
    ) -> Prefix:
        """What a teacher-forced pass goes on from.

        Args:
            model: the fused model.
            prompt: the prompts.
            sharer_kv: the sharers' caches.
            ids: (batch, n), response tokens that will be run.
            mask: (batch, n), which of them are real.
        """
        ...


class PrefillFusion:
    """The paper: prompt tokens in fusion spans, never the last one; all else is computed on the fused cache."""

    reads_whole_prompt = False
    reads_response = False

    def rounds(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """As `FusionMode.rounds`, by the configured order of spans."""
        return prompt.one_pass_plan if config.span_order == "one_pass" else prompt.fusion_plan

    def generation_cache(self, model: "C2CModel", read: FusedPrompt) -> Cache:
        """As `FusionMode.generation_cache`."""
        return dynamic_cache(read.fused)

    def response_prefix(
        self, model: "C2CModel", prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor
    ) -> Prefix:
        """As `FusionMode.response_prefix`: the pass begins after the last span."""
        return Prefix(model.fuse_spans(prompt, sharer_kv))


class PromptFusion(PrefillFusion):
    """The last prompt token too, in the pass that reads it.

    A sharer that looks a fact up only at the end of the prompt has nothing to give before that token.
    """

    reads_whole_prompt = True

    def generation_cache(self, model: "C2CModel", read: FusedPrompt) -> Cache:
        """As `FusionMode.generation_cache`: the cache fuses the first token that it is given."""
        return LastTokenCache(model.fuser, read.fused, last_tokens(read.sharer_kv))

    def response_prefix(
        self, model: "C2CModel", prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor
    ) -> Prefix:
        """As `FusionMode.response_prefix`: the last prompt token's column is fused on the way."""
        receiver_kv, last = model.fuse_spans(prompt, sharer_kv), last_tokens(sharer_kv)
        column = prompt.num_receiver_tokens - 1 - receiver_kv[0].num_tokens

        def fuse_column(rows: Tensor) -> NewEntries:
            theirs = [None if kv is None else [layer.rows(rows) for layer in kv] for kv in last]

            def edit(layer: int, new: LayerKV) -> LayerKV:
                fused = model.fuser.fuse_new(layer, new.tokens(column, column + 1), theirs)
                return new.tokens(0, column).append(fused).append(new.tokens(column + 1))

            return edit

        return Prefix(receiver_kv, fuse_column)


class DecodeFusion:
    """Response tokens too, as the released code's `include_response`, for any architecture.

    Receiver and sharers run clean over the whole text and never see fused entries; every token is fused from these, and
    the pass that makes the logits reads the fused entries of its own tokens.
    """

    reads_whole_prompt = True
    reads_response = True

    def rounds(self, prompt: PromptBatch, config: FuserConfig) -> tuple[FusionStep, ...]:
        """As `FusionMode.rounds`: nothing is read on fused entries."""
        return tuple(replace(fusion, end=prompt.num_receiver_tokens - 1) for fusion in prompt.one_pass_plan)

    def generation_cache(self, model: "C2CModel", read: FusedPrompt) -> Cache:
        """As `FusionMode.generation_cache`: the cache runs the clean models beside the answer."""
        return DecodeCache(model, read)

    def response_prefix(
        self, model: "C2CModel", prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor
    ) -> Prefix:
        """As `FusionMode.response_prefix`: all entries are there before the pass, which only brings its queries."""
        fused, begin = fuse_whole_text(model, prompt, sharer_kv, ids, mask), prompt.num_receiver_tokens - 1

        def replay(rows: Tensor) -> NewEntries:
            return lambda layer, new: fused[layer].tokens(begin, begin + new.num_tokens).rows(rows)

        return Prefix([layer.tokens(0, begin) for layer in fused], replay)


MODES: dict[str, FusionMode] = {"prefill": PrefillFusion(), "prompt": PromptFusion(), "decode": DecodeFusion()}


def last_tokens(sharer_kv: SharerKV) -> list[LayerStack | None]:
    """Each sharer's entries of its last prompt token."""
    return [None if kv is None else [layer.tokens(-1) for layer in kv] for kv in sharer_kv]
