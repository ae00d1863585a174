"""Reading another prompt's sharer."""

import torch

from c2c_lightning.data.mismatch import reread


def slow_reread(own: list[int], donor: list[int]) -> list[int]:
    fused = [token for token, source in enumerate(own) if source >= 0]
    sources = [source for source in donor if source >= 0]
    result = [-1] * len(own)
    for k in range(1, len(fused) + 1):
        if sources:
            result[fused[-k]] = sources[-min(k, len(sources))]
    return result


def test_reading_a_donor_from_the_end() -> None:
    own = [[-1, 4, 5, -1, 6, -1], [-1, -1, -1, 0, 1, -1], [0, 1, 2, 3, 4, -1]]
    donor = [[-1, -1, 7, 8], [2, 3, 9, -1], [-1, -1, -1, -1]]
    result = reread(torch.tensor(own), torch.tensor(donor)).tolist()
    assert result == [slow_reread(mine, theirs) for mine, theirs in zip(own, donor, strict=True)]
    assert result[0] == [-1, 7, 7, -1, 8, -1]
