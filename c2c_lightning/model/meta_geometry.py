"""What a language model will be like, before its weights are loaded."""

import logging

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from c2c_lightning import embedded
from c2c_lightning.errors import ModelLoadError
from c2c_lightning.kv.geometry import KVGeometry, probe_geometry
from c2c_lightning.kv.refusals import refuse_unfusable
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import refuse_hub_kernels

logger = logging.getLogger(__name__)


def expected_geometry(spec: LMSpec) -> KVGeometry | None:
    """Shapes of a model's cache, to refuse a wrong pair at once.

    Args:
        spec: which model.

    Returns:
        Its geometry; None for a model that cannot be run without weights, which is checked once it is loaded.

    Raises:
        ModelLoadError: its configuration cannot be loaded.
        UnsupportedModelError: its cache cannot be fused.
    """
    try:
        path = embedded.resolve(spec.path)
        config = AutoConfig.from_pretrained(path, revision=spec.revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(
            f"cannot load the configuration of {spec.path!r}: {str(error).splitlines()[0]} "
            "Name a local directory or hub model, or `embedded:receiver`."
        ) from error
    refuse_hub_kernels(config, spec.path)
    refuse_unfusable(config, spec.path)
    try:
        # Eager: the masks of other attentions look at values. Grouped experts take bfloat16 alone.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.bfloat16)
        return probe_geometry(model.eval(), spec.path)
    except (RuntimeError, ValueError) as error:
        logger.info("%s is checked once it is loaded (%s)", spec.path, type(error).__name__)
        return None
