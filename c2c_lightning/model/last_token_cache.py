"""A cache that fuses the last prompt token in the pass that reads it."""

from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.cache import EditedLayer
from c2c_lightning.kv.layer import LayerKV, LayerStack


class LastTokenCache(Cache):
    """Fuses the first token that it is given in each layer; later ones stay as they are.

    Attributes:
        last: each sharer's entries of its last prompt token.
    """

    def __init__(self, fuser: Fuser, entries: LayerStack, last: list[LayerStack | None]) -> None:
        """Begin with the entries of all prompt tokens but the last."""
        self.fuser, self.last = fuser, last
        self.waiting = set(range(len(entries)))
        super().__init__(layers=[EditedLayer(layer, n, self._fuse_once) for n, layer in enumerate(entries)])

    def _fuse_once(self, layer: int, new: LayerKV) -> LayerKV:
        if layer not in self.waiting:
            return new
        self.waiting.remove(layer)
        return self.fuser.fuse_new(layer, new.tokens(0, 1), self.last).append(new.tokens(1))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for beams and several answers."""
        super().batch_repeat_interleave(repeats)
        self.last = [None if kv is None else [_repeated(layer, repeats) for layer in kv] for kv in self.last]


def _repeated(layer: LayerKV, repeats: int) -> LayerKV:
    def again(entries: Tensor) -> Tensor:
        return entries.repeat_interleave(repeats, dim=0)

    return LayerKV(again(layer.keys), again(layer.values))
