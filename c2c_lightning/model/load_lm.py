"""Loading frozen language models and their tokenizers."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from c2c_lightning import embedded
from c2c_lightning.errors import ModelLoadError
from c2c_lightning.kv.refusals import refuse_unfusable
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.remote_lm import RemoteLM

__all__ = ["FrozenLM", "LMSpec", "load_frozen", "load_tokenizer", "tokenizer_spec"]

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(spec: LMSpec) -> PreTrainedTokenizerBase:
    """The tokenizer that a spec names.

    Raises:
        ModelLoadError: it is not there, or not a tokenizer.
    """
    if _lacks_tokenizer(spec):
        raise ModelLoadError(_load_message("tokenizer", spec, FileNotFoundError("there is no tokenizer file.")))
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            embedded.resolve(spec.path), revision=spec.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(_load_message("tokenizer", spec, error)) from error
    return tokenizer


def load_frozen(
    spec: LMSpec | str | tuple[nn.Module, PreTrainedTokenizerBase],
    device: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> FrozenLM:
    """Load and freeze a language model.

    Args:
        spec: what to load; a bare string is a path or hub id; or a loaded model with its tokenizer.
        device: where to put it when the spec does not say.
        tokenizer: used where the model comes without one, as a sharer does that reads the receiver's tokens.

    Raises:
        ModelLoadError: it cannot be loaded.
        UnsupportedModelError: its cache cannot be fused.
    """
    if isinstance(spec, tuple):
        model, its_tokenizer = spec
        name = getattr(model, "name_or_path", "") or type(model).__name__
        return FrozenLM(model, its_tokenizer, LMSpec(str(name)))
    if isinstance(spec, str):
        spec = LMSpec(spec)
    if spec.url is not None:
        logger.info("the sharer %s is at %s", spec.path, spec.url)
        return RemoteLM(load_tokenizer(spec), spec)
    logger.info("loading %s", spec.path)
    try:
        model = _load_model(spec, torch.device(spec.device or device or "cpu"))
    except SafetensorError as error:
        raise ModelLoadError(
            f"the weights of {spec.path!r} are damaged or incomplete ({error}). Copy or download them again."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AssertionError) as error:
        raise ModelLoadError(_load_message("model", spec, error)) from error
    if tokenizer is None or not _lacks_tokenizer(spec):
        return FrozenLM(model, load_tokenizer(spec), spec)
    logger.warning("%s comes without a tokenizer; it reads the receiver's tokens", spec.path)
    return FrozenLM(model, tokenizer, spec)


def _load_model(spec: LMSpec, device: torch.device) -> PreTrainedModel:
    dtype = spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)
    settings: dict[str, Any] = {"revision": spec.revision, "dtype": dtype, "trust_remote_code": False}
    if spec.quantization is not None:
        # Some quantised weights cannot be moved, so they are put in place while they are loaded.
        settings |= {"quantization_config": dict(spec.quantization), "device_map": {"": device}}
    path = embedded.resolve(spec.path)
    config = AutoConfig.from_pretrained(path, revision=spec.revision, trust_remote_code=False)
    refuse_hub_kernels(config, spec.path)
    refuse_unfusable(config, spec.path)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, config=config, **settings)
    return model if spec.quantization is not None else model.to(device)  # type: ignore[arg-type]


def refuse_hub_kernels(config: Any, name: str) -> None:
    """Refuse a model whose configuration names an attention kernel of the hub: transformers would download its code.

    Raises:
        ModelLoadError: names the kernel.
    """
    implementation = getattr(config, "_attn_implementation", None)
    if isinstance(implementation, str) and "/" in implementation:
        raise ModelLoadError(
            f"the config.json of {name!r} sets attn_implementation to {implementation!r}, a kernel of the hub, and a "
            "model folder never brings code. Remove that entry, or set it to `sdpa`."
        )
    for part in getattr(config, "sub_configs", {}):
        refuse_hub_kernels(getattr(config, part, None), name)


def _lacks_tokenizer(spec: LMSpec) -> bool:
    """Whether a local folder has no tokenizer; transformers would make up one that knows its special tokens only."""
    folder = Path(embedded.resolve(spec.path))
    # `Path.is_dir` raises OSError for a name that no file can have, such as one of more than 255 characters.
    return os.path.isdir(folder) and not any((folder / name).is_file() for name in TOKENIZER_FILES)


def _load_message(what: str, spec: LMSpec, error: Exception) -> str:
    if _is_missing_directory(spec.path):
        return (
            f"there is no directory {spec.path!r}. Name one that holds config.json, weights and tokenizer, or a hub id."
        )
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, KeyError):
        cause = (
            f"transformers {transformers.__version__} does not know {cause}, which its config.json names: a rotary "
            "type, an activation or another part."
        )
    offline = "" if os.environ.get("HF_HUB_OFFLINE") != "1" else " (HF_HUB_OFFLINE=1: the hub is not asked)"
    kind = "directory" if os.path.exists(spec.path) else "local directory or hub model"
    return (
        f"cannot load the {what} of {spec.path!r}{offline}: {cause} "
        f"Name a {kind} that holds config.json, weights and tokenizer, or `embedded:receiver`."
    )


def _is_missing_directory(path: str) -> bool:
    """Whether a path that is no hub id (`name` or `owner/name`) leads nowhere."""
    is_local = path.startswith(("/", ".", "~")) or path.count("/") > 1
    return is_local and not os.path.exists(Path(path).expanduser())
