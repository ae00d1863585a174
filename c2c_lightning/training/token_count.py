"""How many tokens an optimizer step learns from, over all its batches and processes."""

from torch import Tensor, distributed


class TokenCount:
    """A count that grows batch by batch, and is summed over the processes while they compute.

    A sum that is begun when it is needed would be waited for: `Strategy.reduce` even lets the host wait for its GPU.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parts: list[tuple[Tensor, distributed.Work | None]] = []

    def add(self, tokens: Tensor, processes: int = 1) -> None:
        """Count a batch; every process counts one.

        Args:
            tokens: (), how many this process's batch has, on its device.
            processes: how many train together; all that there are, or one alone.
        """
        total = tokens.float()
        self._parts.append((total, distributed.all_reduce(total, async_op=True) if processes > 1 else None))

    def take(self) -> Tensor:
        """All that was counted since the last time, (); the next count begins at nothing.

        Raises:
            RuntimeError: nothing was counted.
        """
        parts, self._parts = self._parts, []
        if not parts:
            raise RuntimeError("no batch was counted since the last optimizer step.")
        for _, work in parts:
            if work is not None:
                work.wait()  # on a GPU its stream waits, not the host
        first, *others = (total for total, _ in parts)
        return sum(others, first)
