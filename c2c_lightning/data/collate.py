"""Encoded prompts and examples to padded batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch, TrainingBatch, plan_of, positions_of
from c2c_lightning.data.encode import EncodedExample, EncodedPrompt, SharerEncoding

Row = tuple[list[int], list[int] | None, list[int] | None]
"""Token ids, and attention mask and position ids where they are not those of a row without padding."""


class UnsupervisedExample(EncodedExample):
    """An example without supervised tokens: it keeps a process in step with others that have one more example."""


def collate_prompts(
    prompts: Sequence[EncodedPrompt], receiver_pad_id: int, sharer_pad_ids: Sequence[int]
) -> PromptBatch:
    """Pad prompts on the left and compute their fusion plan, in a data loader's worker if there is one.

    Source indices then count the padding of each sharer.
    """
    receiver = _token_batch(prompts, receiver_pad_id)
    sharers = tuple(
        _sharer_tokens([prompt.sharers[number] for prompt in prompts], pad_id, receiver.input_ids.shape[1])
        for number, pad_id in enumerate(sharer_pad_ids)
    )
    return PromptBatch(receiver, sharers, plan_of(receiver, sharers))


def collate_examples(
    examples: Sequence[EncodedExample], receiver_pad_id: int, sharer_pad_ids: Sequence[int]
) -> TrainingBatch:
    """Pad prompts on the left and responses on the right; padding is not supervised."""
    prompt = collate_prompts([example.prompt for example in examples], receiver_pad_id, sharer_pad_ids)
    responses = [example.response_ids for example in examples]
    width = max(map(len, responses))
    ids = torch.tensor([ids + [receiver_pad_id] * (width - len(ids)) for ids in responses])  # (batch, response)
    supervised = [0 if isinstance(e, UnsupervisedExample) else len(e.response_ids) for e in examples]
    lengths = torch.tensor(supervised)  # (batch,)
    return TrainingBatch(prompt, ids, torch.arange(width) < lengths[:, None])


def _token_batch(rows: Sequence[EncodedPrompt], pad_id: int) -> TokenBatch:
    return TokenBatch(*_padded([(row.receiver_ids, row.attention_mask, row.position_ids) for row in rows], pad_id))


def _sharer_tokens(rows: Sequence[SharerEncoding], pad_id: int, receiver_width: int) -> SharerTokens:
    ids, mask, positions = _padded([(row.input_ids, row.attention_mask, row.position_ids) for row in rows], pad_id)
    source = _left_padded([row.source_index for row in rows], -1, receiver_width)
    padding = torch.tensor([ids.shape[1] - len(row.input_ids) for row in rows])[:, None]  # (batch, 1)
    return SharerTokens(ids, mask, positions, torch.where(source >= 0, source + padding, -1))


def _padded(rows: Sequence[Row], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention masks and position ids, each (batch, tokens)."""
    ids = _left_padded([row_ids for row_ids, _, _ in rows], pad_id)
    mask = _left_padded([[1] * len(row_ids) if row_mask is None else row_mask for row_ids, row_mask, _ in rows], 0)
    positions = positions_of(mask)
    for row, (_, _, given) in zip(positions, rows, strict=True):
        # The released alignment counts the padding between sections, which a count of the mask leaves out.
        if given is not None:
            row[len(row) - len(given) :] = torch.tensor(given)
    return ids, mask, positions


def _left_padded(rows: Sequence[list[int]], fill: int, width: int | None = None) -> Tensor:
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[fill] * (width - len(row)) + row for row in rows])  # (batch, width)
