"""Encoded prompts and examples to padded batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionPlan
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch, positions_of
from c2c_lightning.data.encode import EncodedExample, EncodedPrompt, SharerEncoding


class UnsupervisedExample(EncodedExample):
    """An example without supervised tokens: it keeps a process in step with others that have one more example."""


def collate_prompts(
    prompts: Sequence[EncodedPrompt], receiver_pad_id: int, sharer_pad_ids: Sequence[int]
) -> PromptBatch:
    """Pad prompts on the left and compute their fusion plan, in a data loader's worker if there is one.

    Args:
        prompts: the encoded prompts, all with the same sharers.
        receiver_pad_id: padding token of the receiver.
        sharer_pad_ids: padding token of each sharer.

    Returns:
        The batch; `source_index` counts each sharer's own padding.
    """
    receiver = _token_batch(prompts, receiver_pad_id)
    sharers = tuple(
        _sharer_tokens([prompt.sharers[number] for prompt in prompts], pad_id, receiver.input_ids.shape[1])
        for number, pad_id in enumerate(sharer_pad_ids)
    )
    plan = FusionPlan.of([sharer.index for sharer in sharers], receiver.mask)
    return PromptBatch(receiver, sharers, plan)


def collate_examples(
    examples: Sequence[EncodedExample], receiver_pad_id: int, sharer_pad_ids: Sequence[int]
) -> TrainingBatch:
    """Pad prompts on the left and responses on the right; padding is not supervised.

    Args:
        examples: the encoded examples, all with the same sharers.
        receiver_pad_id: padding token of the receiver, in prompts and responses.
        sharer_pad_ids: padding token of each sharer.
    """
    prompt = collate_prompts([example.prompt for example in examples], receiver_pad_id, sharer_pad_ids)
    responses = [example.response_ids for example in examples]
    width = max(map(len, responses))
    ids = torch.tensor([ids + [receiver_pad_id] * (width - len(ids)) for ids in responses])  # (batch, response)
    supervised = [0 if isinstance(e, UnsupervisedExample) else len(e.response_ids) for e in examples]
    lengths = torch.tensor(supervised)  # (batch,)
    return TrainingBatch(prompt, ids, torch.arange(width) < lengths[:, None])


def _token_batch(rows: Sequence[EncodedPrompt], pad_id: int) -> TokenBatch:
    lengths = [len(row.receiver_ids) for row in rows]
    ids = _left_padded([row.receiver_ids for row in rows], pad_id)
    mask = _mask([row.attention_mask for row in rows], lengths)
    return TokenBatch(ids, mask, _positions([row.position_ids for row in rows], mask))


def _sharer_tokens(rows: Sequence[SharerEncoding], pad_id: int, receiver_width: int) -> SharerTokens:
    lengths = [len(row.input_ids) for row in rows]
    ids = _left_padded([row.input_ids for row in rows], pad_id)
    mask = _mask([row.attention_mask for row in rows], lengths)
    positions = _positions([row.position_ids for row in rows], mask)
    source = _left_padded([row.source_index for row in rows], -1, receiver_width)
    padding = torch.tensor([ids.shape[1] - length for length in lengths])[:, None]  # (batch, 1)
    return SharerTokens(ids, mask, positions, torch.where(source >= 0, source + padding, -1))


def _left_padded(rows: Sequence[list[int]], fill: int, width: int | None = None) -> Tensor:
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[fill] * (width - len(row)) + row for row in rows])  # (batch, width)


def _mask(masks: Sequence[list[int] | None], lengths: Sequence[int]) -> Tensor:
    """Attention masks; all 1 where a row has none of its own, (batch, tokens)."""
    rows = [[1] * length if mask is None else mask for mask, length in zip(masks, lengths, strict=True)]
    return _left_padded(rows, 0)


def _positions(positions: Sequence[list[int] | None], mask: Tensor) -> Tensor:
    """Position ids, counted from the mask where a row has none of its own, (batch, tokens)."""
    result = positions_of(mask)
    for row, own in zip(result, positions, strict=True):
        if own is not None:
            row[len(row) - len(own) :] = torch.tensor(own)
    return result
