"""The options of a run. Standard library only: the process that starts the parts survives any failure in them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Day:
    """One run.

    Attributes:
        device: `cuda` or `cpu`.
        is_tiny: tiny models instead of the paper's sizes.
        out: folder for the results.
        models: folder with real models, if there is one.
    """

    device: str
    is_tiny: bool
    out: Path
    models: Path | None = None

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"

    @property
    def arguments(self) -> list[str]:
        """The command line that repeats this run."""
        words = ["--device", self.device, "--out", str(self.out.resolve())]
        words += ["--tiny"] if self.is_tiny else []
        return words + (["--models", str(self.models.resolve())] if self.models else [])

    def part_file(self, name: str) -> Path:
        """The file of one part's entries."""
        return self.out / f"part_{name}.json"
