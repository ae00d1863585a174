"""The frozen models of a training whose caches are kept, and which of their layers."""

from dataclasses import dataclass

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.training.frozen_cache.flat_entries import FlatLayout


@dataclass(frozen=True)
class KeptModel:
    """A frozen model whose caches are kept.

    Attributes:
        name: `sharer-0`, ..., or `receiver`.
        lm: the model.
        layout: the layers that are kept.
    """

    name: str
    lm: FrozenLM
    layout: FlatLayout

    @property
    def token_bytes(self) -> int:
        """Size of the entries of one token; less with autocast to a narrower type than that of the weights."""
        return sum(self.layout.widths) * int(self.lm.model.dtype.itemsize)


def kept_models(core: C2CCore) -> list[KeptModel]:
    """All sharers, and the receiver unless it is a hybrid or processes unfused tokens only (`fusion_mode: replace`).

    A hybrid's states are those after one token of a row, and other batches would continue after other tokens.

    Raises:
        ConfigurationError: a sharded model, a sharer in another process, or a receiver that is trained.
    """
    if not core.sharers:
        raise ConfigurationError("`cache_frozen` is for fusers; this baseline trains the receiver. Leave it out.")
    for lm in (core.receiver, *core.sharers):
        if lm.is_sharded or not lm.can_generate:
            reason = "is sharded: its processes run each pass together" if lm.is_sharded else "runs in another process"
            raise ConfigurationError(
                f"the caches of {lm.spec.path} cannot be kept, since it {reason}. Leave out `model.cache_frozen`, or "
                "load the model as a whole (`shard_models: false`, no `url`)."
            )
    models = [
        KeptModel(f"sharer-{n}", lm, FlatLayout.of(lm.geometry, fuser.read_layers, lm.records_hidden))
        for n, (lm, fuser) in enumerate(zip(core.sharers, core.fuser.sharers, strict=True))
    ]
    if core.receiver.layout is None and not core.mode.replaces_receiver:
        geometry = core.receiver.geometry
        models.append(KeptModel("receiver", core.receiver, FlatLayout.of(geometry, range(geometry.num_layers), False)))
    return models
