"""Reading another prompt's sharer."""

import torch

from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.data.mismatch import donor_rows, reread


def slow_reread(prompts: list[int], donor: list[int]) -> list[int]:
    fused = [token for token, source in enumerate(prompts) if source >= 0]
    sources = [source for source in donor if source >= 0]
    result = [-1] * len(prompts)
    for k in range(1, len(fused) + 1):
        if sources:
            result[fused[-k]] = sources[-min(k, len(sources))]
    return result


def test_reading_a_donor_from_the_end() -> None:
    prompts = [[-1, 4, 5, -1, 6, -1], [-1, -1, -1, 0, 1, -1], [0, 1, 2, 3, 4, -1]]
    donor = [[-1, -1, 7, 8], [2, 3, 9, -1], [-1, -1, -1, -1]]
    result = reread(torch.tensor(prompts), torch.tensor(donor)).tolist()
    assert result == [slow_reread(mine, theirs) for mine, theirs in zip(prompts, donor, strict=True)]
    assert result[0] == [-1, 7, 7, -1, 8, -1]


def batch_of(rows: list[list[int]], mask: list[list[int]] | None = None) -> PromptBatch:
    ids = torch.tensor(rows)
    index = torch.full((len(rows), 2), -1)
    sharer = SharerTokens(ids, None if mask is None else torch.tensor(mask), None, index)
    return PromptBatch(TokenBatch(torch.ones(len(rows), 2, dtype=torch.long)), (sharer,))


def test_donors_are_the_next_rows() -> None:
    assert donor_rows(batch_of([[1], [2], [3]])).tolist() == [1, 2, 0]


def test_rows_with_the_same_document_are_no_donors() -> None:
    assert donor_rows(batch_of([[1], [1], [2], [1]])).tolist() == [2, 2, 3, 2]


def test_padding_makes_no_difference() -> None:
    same = batch_of([[9, 1], [8, 1], [0, 2]], [[0, 1], [0, 1], [0, 1]])
    assert donor_rows(same).tolist() == [2, 2, 0]


def test_rows_that_are_all_the_same_still_have_donors() -> None:
    assert donor_rows(batch_of([[1], [1]])).tolist() == [1, 0]
