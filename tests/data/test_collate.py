from dataclasses import replace

import pytest
import torch

from c2c_lightning.alignment.fusion_plan import FusionPlan
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.collate import collate_examples, collate_prompts
from c2c_lightning.data.encode import EncodedExample, EncodedPrompt, SharerEncoding

SHORT = EncodedPrompt([5, 6], (SharerEncoding([7, 8, 9], [1, -1]),))
LONG = EncodedPrompt([1, 2, 3, 4], (SharerEncoding([3, 4], [0, 0, 1, -1]),))


def test_padding_is_on_the_left_and_source_index_counts_it() -> None:
    batch = collate_prompts([SHORT, LONG], 0, [99])
    assert batch.receiver.input_ids.tolist() == [[0, 0, 5, 6], [1, 2, 3, 4]]
    assert batch.receiver.mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch.receiver.positions.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    sharer = batch.sharers[0]
    assert sharer.input_ids.tolist() == [[7, 8, 9], [99, 3, 4]]
    assert sharer.index.tolist() == [[-1, -1, 1, -1], [1, 1, 2, -1]]


def test_every_read_token_is_the_same_as_alone() -> None:
    batch = collate_prompts([SHORT, LONG], 0, [99])
    for row, prompt in enumerate((SHORT, LONG)):
        alone = collate_prompts([prompt], 0, [99]).sharers[0]
        expected = [alone.input_ids[0, i].item() for i in alone.index[0].tolist() if i >= 0]
        together = batch.sharers[0]
        assert [together.input_ids[row, i].item() for i in together.index[row].tolist() if i >= 0] == expected


def test_the_fusion_plan_is_computed_once_and_moves_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate_prompts([SHORT, LONG], 0, [99])
    expected = [(step.begin, step.end) for step in PromptBatch(batch.receiver, batch.sharers).fusion_plan]
    monkeypatch.setattr(FusionPlan, "of", None)
    assert [(step.begin, step.end) for step in batch.to("meta").fusion_plan] == expected
    assert batch.to("meta").plan.num_read_tokens == (3,)


def test_changed_sharers_have_a_fusion_plan_of_their_own() -> None:
    batch = collate_prompts([SHORT, LONG], 0, [99])
    unfused = replace(batch.sharers[0], source_index=torch.full((2, 4), -1))
    assert batch.fusion_plan
    assert not replace(batch, sharers=(unfused,)).fusion_plan


def test_own_positions_and_masks_are_kept() -> None:
    sharer = SharerEncoding([7, 0, 9], [0, 2], position_ids=[0, 1, 2], attention_mask=[1, 0, 1])
    batch = collate_prompts([EncodedPrompt([5, 6], (sharer,), [3, 4], [1, 1]), LONG], 0, [0])
    assert batch.receiver.positions[0].tolist() == [0, 0, 3, 4]
    assert batch.sharers[0].mask.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert batch.sharers[0].positions.tolist() == [[0, 1, 2], [0, 0, 1]]


def test_responses_are_padded_on_the_right_and_padding_is_not_supervised() -> None:
    batch = collate_examples([EncodedExample(SHORT, [4]), EncodedExample(LONG, [5, 6, 7])], 0, [0])
    assert batch.response_ids.tolist() == [[4, 0, 0], [5, 6, 7]]
    assert batch.response_mask.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("sharers", [0, 2])
def test_any_number_of_sharers(sharers: int) -> None:
    prompt = EncodedPrompt([1, 2], (SharerEncoding([3], [0, -1]),) * sharers)
    batch = collate_prompts([prompt, prompt], 0, [0] * sharers)
    assert len(batch.sharers) == sharers
    assert batch.receiver.input_ids.dtype == torch.long
