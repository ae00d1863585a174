"""Cache for fusion mode `prompt`: fuses the last prompt token in the pass that computes its entries."""

import torch
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fusion_plan import TokenPositions
from c2c_lightning.fuser.fuser import SplitFuser
from c2c_lightning.kv.cache import edited_cache_layers
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.kv.states import ModelStates


class LastTokenCache(Cache):
    """Fuses the first token that each layer is given; later tokens are appended unchanged.

    Attributes:
        last: each sharer's entries of its last prompt token.
        positions: position ids of the last prompt tokens.
    """

    def __init__(
        self,
        fuser: SplitFuser,
        entries: LayerStack,
        last: list[LayerStack | None],
        positions: TokenPositions,
        states: ModelStates | None = None,
    ) -> None:
        """Begin with the entries of all prompt tokens but the last, and with a hybrid's states after them."""
        self.fuser, self.last, self.positions = fuser, last, positions
        self.unfused_layers = set(range(len(entries)))
        super().__init__(layers=list(edited_cache_layers(entries, self._fuse_once, states)))

    def _fuse_once(self, layer: int, new: LayerKV) -> LayerKV:
        if layer not in self.unfused_layers:
            return new
        self.unfused_layers.remove(layer)
        return self.fuser.fuse_new(layer, new.tokens(0, 1), self.last, self.positions).append(new.tokens(1))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for beams and several answers."""
        super().batch_repeat_interleave(repeats)
        self.last = [None if kv is None else [layer.repeat(repeats) for layer in kv] for kv in self.last]
        rows = torch.arange(len(self.positions.receiver), device=self.positions.receiver.device)
        self.positions = self.positions.rows(rows.repeat_interleave(repeats))
