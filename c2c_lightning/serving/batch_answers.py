"""Prefills and generates the answers of prepared rows with one fused or single model."""

from collections.abc import Hashable, Iterator, Sequence

from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.mismatch import swap_sharers
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.batch_generation import BatchGeneration, Prefilled, collate
from c2c_lightning.serving.fused_facts import fused_facts
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.prepared_prompt import PreparedPrompt


def answer_rows(
    model: C2CModel,
    encoder: Encoder,
    rows: Sequence[AnswerRow],
    prompts: Sequence[PreparedPrompt],
    prefixes: PrefixCache,
) -> None:
    """Answer rows of one group.

    Args:
        model: answers; without sharers it is a language model alone.
        encoder: made the prompts.
        rows: the answers, `settings.max_tokens` of each within the room of its prompt.
        prompts: their prompts.
        prefixes: fused prompts of earlier answers.
    """
    generation = BatchGeneration(model, prefixes)
    for part in _parts(rows, prompts):
        some, theirs = [rows[n] for n in part], [prompts[n] for n in part]
        for row in some:
            row.begin(model.receiver.tokenizer)
        prefilled = _prefilled(generation, encoder, theirs)
        for number, (row, prompt) in enumerate(zip(some, theirs, strict=True)):
            row.facts |= {"prompt_tokens": prompt.num_tokens, **dict(prompt.facts)}
            row.facts |= _facts(model, prefilled, number, row.wants_detail)
        generation.generate(some, prefilled, _kept_as(theirs[0]))


def _prefilled(generation: BatchGeneration, encoder: Encoder, prompts: Sequence[PreparedPrompt]) -> Prefilled:
    active, encoded = prompts[0].choices.active_sharers, [prompt.encoded for prompt in prompts]
    donors = [prompt.donor for prompt in prompts if prompt.donor is not None]
    if not donors:
        return generation.prefill(encoded, encoder, prompts[0].group, active)
    batch = swap_sharers(collate(encoder, encoded), collate(encoder, donors))
    return Prefilled(generation.model.prefill(batch, active))


def _kept_as(prompt: PreparedPrompt) -> Hashable | None:
    """Mismatched caches are not kept."""
    return None if prompt.donor is not None else prompt.group


def _facts(model: C2CModel, prefilled: Prefilled, number: int, is_detailed: bool) -> dict[str, object]:
    reused: dict[str, object] = {"cached_tokens": prefilled.num_reused[number] if prefilled.num_reused else 0}
    if not model.sharers:
        return reused
    fused, row = (prefilled.rows[number], 0) if prefilled.rows else (prefilled.batch, number)
    return {**reused, **fused_facts(model, fused, row, is_detailed)}


def _parts(rows: Sequence[AnswerRow], prompts: Sequence[PreparedPrompt]) -> Iterator[list[int]]:
    """Rows that may share a batch: each answer must fit behind the longest prompt of the batch.

    A row whose answer has ended is fed padding until the longest answer of its batch ends.
    """
    waiting = sorted(range(len(rows)), key=lambda n: prompts[n].room)
    while waiting:
        room = prompts[waiting[0]].room
        part = [n for n in waiting if rows[n].settings.max_tokens <= room]
        yield sorted(part)
        waiting = [n for n in waiting if n not in part]
