"""Work of one model beside that of another: both are started before either is waited for."""

from collections.abc import Callable
from typing import Any

import torch

from c2c_lightning.kv.layer import LayerStack


class SideStreamPrefill:
    """A prefill on a stream of its own, so that the device may run it beside what is started after it.

    Kernels of one stream wait for each other even where nothing depends on anything. Nothing is waited for on the host:
    `result` makes the device's stream wait. Where a device has no streams, work is simply done.
    """

    def __init__(self, device: torch.device, work: Callable[[], LayerStack], cuda: Any = torch.cuda) -> None:
        """Start the work.

        Args:
            device: where it runs.
            work: launches it.
            cuda: what makes streams.
        """
        self.device, self.cuda = device, cuda
        self.stream = cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is None:
            self.kv = work()
            return
        # What the work reads is being made on the current stream.
        self.stream.wait_stream(cuda.current_stream(device))
        with cuda.stream(self.stream):
            self.kv = work()

    def result(self) -> LayerStack:
        """The entries, for the current stream to read."""
        if self.stream is not None:
            current = self.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for layer in self.kv:
                for entries in (layer.keys, layer.values):
                    # Otherwise their memory is free for the side stream while the current one still reads it.
                    entries.record_stream(current)
        return self.kv
