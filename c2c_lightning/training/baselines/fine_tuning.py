"""Fine-tuning of the receiver's own weights, in float32."""

from dataclasses import dataclass, replace

from torch import nn

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.training.baselines.receiver_baseline import ReceiverBaseline, require_budget


@dataclass(frozen=True)
class FullFineTuning(ReceiverBaseline):
    """All weights of the receiver are trained (*Single* of paper, table 6)."""

    def tuned(self, spec: LMSpec, device: str, budget: int | None) -> FrozenLM:
        """See `ReceiverBaseline.tuned`."""
        lm = _load_float32(spec, device)
        lm.model.requires_grad_(True)
        return lm


@dataclass(frozen=True)
class PartialFineTuning(ReceiverBaseline):
    """The last decoder layers of the receiver are trained.

    Attributes:
        layers: number of trained layers; default that whose size is nearest to the fuser's.
    """

    layers: int | None = None

    def tuned(self, spec: LMSpec, device: str, budget: int | None) -> FrozenLM:
        """See `ReceiverBaseline.tuned`."""
        lm = _load_float32(spec, device)
        blocks = lm.blocks
        count = self.layers
        if count is None:
            count = _nearest(blocks, require_budget(budget, "PartialFineTuning", "layers"))
        if not 1 <= count <= len(blocks):
            raise ConfigurationError(
                f"PartialFineTuning: `layers` is {count}, but {spec.path} has {len(blocks)} layers. Choose 1 to "
                f"{len(blocks)}, or FullFineTuning."
            )
        for block in blocks[-count:]:
            block.requires_grad_(True)
        return lm


def _load_float32(spec: LMSpec, device: str) -> FrozenLM:
    """The receiver in float32: steps of a usual size vanish in the rounding of bfloat16 weights.

    Raises:
        ConfigurationError: quantised weights.
    """
    if spec.quantization is not None:
        raise ConfigurationError("quantised weights cannot be trained. Remove `quantization`, or use LoraBaseline.")
    return load_frozen(replace(spec, dtype="float32"), device)


def _nearest(blocks: list[nn.Module], budget: int) -> int:
    """Number of last blocks whose parameters together are nearest to the budget."""
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in reversed(blocks)]
    totals = [sum(sizes[: count + 1]) for count in range(len(sizes))]
    return 1 + min(range(len(totals)), key=lambda n: abs(totals[n] - budget))
