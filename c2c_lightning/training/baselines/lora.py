"""LoRA on the receiver, by PEFT."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from c2c_lightning.errors import ConfigurationError, MissingExtraError
from c2c_lightning.fuser.config_checks import check_range
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.training.baselines.receiver_baseline import ReceiverBaseline, require_budget

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class LoraBaseline(ReceiverBaseline):
    """Low-rank adapters on linear maps of the receiver; its own weights stay.

    Attributes:
        rank: rank of the adapters; default that whose number of parameters is nearest to `parameters`.
        parameters: number of trained parameters; default that of the configured fuser.
        scale: factor of the adapters' output (`lora_alpha` divided by the rank).
        target_modules: names of the modules that get adapters; `all-linear` for every linear map but the output head.
    """

    rank: int | None = None
    parameters: int | None = None
    scale: float = 2.0
    target_modules: str | list[str] = ALL_LINEAR

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        super().__post_init__()
        for name in ("rank", "parameters"):
            if getattr(self, name) is not None:
                check_range(self, (name,), 1, 10**12)
        if self.rank is not None and self.parameters is not None:
            raise ConfigurationError("LoraBaseline: set `rank` or `parameters`, not both.")

    def tuned(self, spec: LMSpec, device: str, budget: int | None) -> FrozenLM:
        """See `ReceiverBaseline.tuned`.

        Raises:
            ConfigurationError: a module is not there, or the rank is higher than useful.
            MissingExtraError: PEFT is not installed.
        """
        receiver = load_frozen(spec, device)
        shapes = adapted_shapes(receiver.model, self.target_modules)
        rank = self.rank
        if rank is None:
            wanted = self.parameters or require_budget(budget, "LoraBaseline", "rank")
            rank = nearest_rank(shapes, wanted)
        check_rank(rank, shapes)
        adapted = add_adapters(receiver.model, rank, self.scale, self.target_modules)
        lm = FrozenLM(adapted, receiver.tokenizer, spec)
        for name, parameter in adapted.named_parameters():
            parameter.requires_grad_("lora_" in name)
        return lm


def add_adapters(model: nn.Module, rank: int, scale: float, target_modules: str | Sequence[str]) -> Any:
    """The model with fresh adapters, which change nothing yet.

    Raises:
        ConfigurationError: no module, or none of one of the names, is there.
        MissingExtraError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
        from peft.utils.error import NoMatchingPeftModuleError
    except ImportError as problem:
        raise MissingExtraError("LoRA needs PEFT: pip install 'c2c-lightning[lora]'.") from problem
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    alpha: Any = scale * rank  # PEFT declares an integer, but takes any number
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        with warnings.catch_warnings():  # PEFT 0.21 asks transformers for an attribute under its former name
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(model, config)
    except NoMatchingPeftModuleError as problem:
        raise ConfigurationError(_missing(targets, model)) from problem
    found = adapted.targeted_module_names
    for name in [] if isinstance(targets, str) else targets:
        if not any(module == name or module.endswith(f".{name}") for module in found):
            raise ConfigurationError(_missing(name, model))
    return adapted


def adapted_shapes(model: Any, target_modules: str | Sequence[str]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each module that would get an adapter; the model stays as it is."""
    with torch.device("meta"):
        copy = AutoModelForCausalLM.from_config(model.config)
    adapted = add_adapters(copy, 1, 1.0, target_modules)
    sizes = {name: parameter.shape for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    down = {name.partition(".lora_A")[0]: shape[1] for name, shape in sizes.items() if ".lora_A" in name}
    up = {name.partition(".lora_B")[0]: shape[0] for name, shape in sizes.items() if ".lora_B" in name}
    return {name: (inputs, up[name]) for name, inputs in down.items()}


def nearest_rank(shapes: dict[str, tuple[int, int]], parameters: int) -> int:
    """The rank, at least 1, whose adapters have nearest to a number of parameters.

    Example:
        >>> nearest_rank({"q": (8, 8), "v": (8, 4)}, 60)
        2
    """
    return max(1, round(parameters / sum(map(sum, shapes.values()))))


def check_rank(rank: int, shapes: dict[str, tuple[int, int]]) -> None:
    """Refuse a rank that no map of these shapes can have.

    Raises:
        ConfigurationError: names the smallest map.
    """
    name, (inputs, outputs) = min(shapes.items(), key=lambda item: min(item[1]))
    if rank > min(inputs, outputs):
        raise ConfigurationError(
            f"LoraBaseline: a rank of {rank} is higher than {name} can have ({inputs} inputs, {outputs} outputs): "
            f"further parameters add nothing. Choose a rank of at most {min(inputs, outputs)}, adapt larger modules "
            "(`target_modules`), or use FullFineTuning."
        )


def _missing(name: str | Sequence[str], model: nn.Module) -> str:
    leaves = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    return (
        f"LoraBaseline: {type(model).__name__} has no module {name!r} for `target_modules`. Its linear maps are "
        f"{', '.join(sorted(leaves))}; `all-linear` adapts all but the output head."
    )
