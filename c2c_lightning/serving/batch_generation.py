"""Answers the rows of one batch with one model: prefill, fusion and `generate` of the model package, once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import EncodedPrompt, Encoder
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.fused_rows import join_rows, row_of
from c2c_lightning.model.generation import end_tokens
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.prefix_cache import MIN_TOKENS, PrefixCache
from c2c_lightning.serving.row_sampling import LogProbRecorder, RowEnds, RowSampling


@dataclass(frozen=True)
class Prefilled:
    """The caches of a batch, and of its rows where they were prefilled apart."""

    batch: FusedPrompt
    rows: tuple[FusedPrompt, ...] = ()
    num_reused: tuple[int, ...] = ()


class BatchGeneration:
    """Generates the answers of batches with one model.

    Args:
        model: the model; without sharers it is a language model alone.
        prefixes: fused prompts of earlier answers.
    """

    def __init__(self, model: C2CModel, prefixes: PrefixCache) -> None:
        self.model, self.prefixes = model, prefixes

    @torch.no_grad()
    def prefill(
        self,
        prompts: Sequence[EncodedPrompt],
        encoder: Encoder,
        group: Hashable,
        active_sharers: Sequence[int] | None = None,
    ) -> Prefilled:
        """The fused caches of encoded prompts; rows that continue a kept prompt are prefilled one by one."""
        found = [self.prefixes.find(group, prompt.receiver_ids) for prompt in prompts]
        batch = collate(encoder, prompts)
        reuses = any(fused is not None for fused, _ in found)
        # Only a plain growing cache can be put together from rows.
        if not reuses or (len(prompts) > 1 and self.model.mode.fuses_last_prompt_token):
            return Prefilled(self.model.prefill(batch, active_sharers))
        rows = tuple(
            self.model.prefill(collate(encoder, [prompt]), active_sharers, prefix=fused)
            for prompt, (fused, _) in zip(prompts, found, strict=True)
        )
        joined = rows[0] if len(rows) == 1 else join_rows(rows, batch.to(self.model.receiver.device))
        return Prefilled(joined, rows, tuple(length for _, length in found))

    @torch.no_grad()
    def generate(self, rows: Sequence[AnswerRow], prefilled: Prefilled, group: Hashable | None) -> None:
        """Generate all answers of a batch; `group`: under which its caches are kept, None: they are not."""
        model, recorder = self.model, LogProbRecorder(rows)
        ends = RowEnds(rows, end_tokens(model.receiver), recorder, (model.receiver, *model.sharers))
        cache = model.mode.generation_cache(model, prefilled.batch)
        model.continue_from(
            prefilled.batch,
            cache,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            max_new_tokens=max(row.settings.max_tokens for row in rows),
            logits_processor=LogitsProcessorList([recorder, RowSampling(rows)]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        for row in rows:
            row.end_early()
        if group is not None and self.prefixes.max_bytes:
            self._keep(rows, prefilled, cache, group)

    def _keep(self, rows: Sequence[AnswerRow], prefilled: Prefilled, cache: Cache, group: Hashable) -> None:
        """Keep the caches of all rows, with their answers where these are plain entries."""
        if prefilled.batch.states is not None:  # the states of a hybrid belong to the last column of a whole batch
            return
        width, lengths = prefilled.batch.prompt.num_receiver_tokens, prefilled.batch.prompt.receiver.mask.sum(1)
        for number, row in enumerate(rows):
            if int(lengths[number]) < MIN_TOKENS:
                continue
            fused = prefilled.rows[number] if prefilled.rows else row_of(prefilled.batch, number, self._plan)
            if type(cache) is DynamicCache:
                begin = width - fused.prompt.num_receiver_tokens
                index = torch.tensor([number])
                entries = [layer.rows(index).tokens(begin, width + len(row.ids)) for layer in cache_entries(cache)]
                ids = torch.tensor([row.ids], device=self.model.receiver.device)
                fused = fused.with_response(ids, entries)
            self.prefixes.keep(group, fused)

    def _plan(self, prompt: PromptBatch) -> tuple[FusionStep, ...]:
        return self.model.mode.plan(prompt, self.model.fuser.config)


def collate(encoder: Encoder, prompts: Sequence[EncodedPrompt]) -> PromptBatch:
    """Encoded prompts as a left-padded batch."""
    return collate_prompts(prompts, encoder.receiver_pad_id, encoder.sharer_pad_ids)
