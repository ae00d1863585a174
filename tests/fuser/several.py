"""What two sharers do together, for any kind of fuser."""

import torch

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerStack


def check_order(fuser: Fuser, mine: LayerStack, first: LayerStack, second: LayerStack, both: FusionStep) -> None:
    """`parallel` adds up what each gives alone; `sequential` lets the second read what the first has made.

    Args:
        fuser: with two sharers.
        mine: the receiver's cache.
        first: the first sharer's cache.
        second: the second one's.
        both: what is fused from either.
    """
    only_first, only_second = fuser(mine, [first, None], both), fuser(mine, [None, second], both)
    after_first = fuser(only_first, [None, second], both)
    for n, layer in enumerate(fuser(mine, [first, second], both)):
        summed = only_first[n].keys + only_second[n].keys - mine[n].keys
        expected = summed if fuser.config.sharer_order == "parallel" else after_first[n].keys
        torch.testing.assert_close(layer.keys, expected)
