"""The hidden states that enter the decoder layers of a running model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class BlockInput:
    """The hidden states that the running decoder layer was given, (batch, 1, tokens, hidden size).

    Attributes:
        states: those of the layer that was entered last.
    """

    states: Tensor | None = None

    @contextmanager
    def watch(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Keep the states up to date while a model runs.

        Args:
            blocks: its decoder layers.
        """
        handles = [block.register_forward_pre_hook(self._take, with_kwargs=True) for block in blocks]
        try:
            yield
        finally:
            self.states = None
            for handle in handles:
                handle.remove()

    def _take(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        self.states = states.unsqueeze(1)
