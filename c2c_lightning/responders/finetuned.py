"""Trained receivers as models that answer: adapters on a receiver, and tuned copies of it."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from c2c_lightning.errors import BenchmarkError, MissingExtraError, PairMismatchError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen

ADAPTERS = "adapter_model.safetensors"


def check_adapters(path: str) -> None:
    """Refuse a folder without adapters of `lightning fit`.

    Raises:
        BenchmarkError: names the folder.
    """
    missing = [name for name in (ADAPTERS, "adapter_config.json") if not (Path(path) / name).is_file()]
    if missing:
        raise BenchmarkError(
            f"`receiver:lora`: {path} has no {' and no '.join(missing)}. Name the folder that `lightning fit` with "
            "`model.baseline: LoraBaseline` writes (`receiver` in its run folder)."
        )


def check_tuned(path: str) -> None:
    """Refuse a folder without a model.

    Raises:
        BenchmarkError: names the folder.
    """
    if not (Path(path) / "config.json").is_file():
        raise BenchmarkError(
            f"`receiver:tuned`: {path} holds no model (config.json). Name the folder that `lightning fit` with "
            "`model.baseline: FullFineTuning` or `PartialFineTuning` writes (`receiver` in its run folder)."
        )


def with_adapters(receiver: FrozenLM, path: str) -> FrozenLM:
    """The receiver with LoRA adapters of a folder; the weights are shared, the given model stays as it is.

    Raises:
        MissingExtraError: PEFT is not installed.
        PairMismatchError: adapters of another model.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as problem:
        raise MissingExtraError("`receiver:lora` needs PEFT: pip install 'c2c-lightning[lora]'.") from problem
    # Adapters take the place of modules, so the modules are copied, but not their weights.
    shared = [*receiver.model.parameters(), *receiver.model.buffers()]
    model: Any = copy.deepcopy(receiver.model, {id(tensor): tensor for tensor in shared})
    try:
        with warnings.catch_warnings():  # PEFT asks transformers for a renamed attribute, and warns of missing weights
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, path)
        saved = _names(Path(path) / ADAPTERS)
    except (RuntimeError, ValueError, SafetensorError) as problem:
        raise PairMismatchError(_mismatch(path, receiver, str(problem).strip().splitlines()[-1].strip())) from problem
    # PEFT itself leaves out what has no counterpart.
    expected = set(get_peft_model_state_dict(adapted))
    if saved != expected:
        differing = min(saved ^ expected)
        raise PairMismatchError(_mismatch(path, receiver, f"{differing} is in one of them only."))
    return FrozenLM(adapted, receiver.tokenizer, receiver.spec)


def tuned_receiver(receiver: FrozenLM, path: str) -> FrozenLM:
    """A tuned copy of the receiver, read with the receiver's templates.

    Raises:
        PairMismatchError: a model of another geometry.
    """
    lm = load_frozen(replace(receiver.spec, path=path, revision=None), str(receiver.device))
    if lm.geometry != receiver.geometry:
        raise PairMismatchError(_mismatch(path, receiver, "the shapes of their caches differ."))
    return lm


def _names(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def _mismatch(path: str, receiver: FrozenLM, reason: str) -> str:
    return (
        f"{path} was not trained on {receiver.spec.path}: {reason} Evaluate it with its own receiver, or leave it out "
        "of `responders`."
    )
