"""Reading another prompt's sharer."""

import torch

from c2c_lightning.data.mismatch import reread


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
