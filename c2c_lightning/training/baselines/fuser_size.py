"""The number of trained parameters of a configured fuser, without loading a model."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.meta_geometry import expected_geometry


def fuser_parameters(receiver: LMSpec, sharers: Sequence[LMSpec], config: FuserConfig) -> int | None:
    """Number of trained parameters; None for models whose caches are known only once they are loaded."""
    mine, *theirs = (expected_geometry(spec) for spec in (receiver, *sharers))
    known = [geometry for geometry in theirs if geometry is not None]
    if mine is None or len(known) < len(theirs):
        return None
    if config.searches_layers:  # another map of as many layers
        config = replace(config, layer_alignment="upper_half" if config.layer_alignment == "answer" else "terminal")
    with torch.device("meta"):
        fuser = Fuser(mine, known, config)
    gates = {id(parameter) for parameter in fuser.parameter_roles().gates} if config.gate_noise == "none" else set()
    return sum(p.numel() for p in fuser.parameters() if p.requires_grad and id(p) not in gates)
