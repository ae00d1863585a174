"""The language model classes of the installed transformers, and tiny random models of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.family_matrix.tiny_config import tiny_config

MAX_PARAMETERS = 4_000_000


class UntestedError(Exception):
    """A class of which no tiny model can be built; the message says why."""


@dataclass(frozen=True)
class LMClass:
    """A language model class, with settings of its configuration where a family has variants.

    Attributes:
        name: the class.
        variant: description of the settings, empty for the default configuration.
        settings: fields of the configuration.
    """

    name: str
    variant: str = ""
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        """Its name in the table."""
        return f"{self.name} ({self.variant})" if self.variant else self.name

    def build(self, seed: int = 0) -> Any:
        """A tiny random model in evaluation mode, float32.

        Raises:
            UntestedError: it cannot be built, or not be made tiny.
        """
        try:
            model_class = getattr(transformers, self.name)
            config = tiny_config(_config_class(model_class, self.name), **self.settings)
            # Counted without memory first: a size that no rule makes small may be large.
            with torch.device("meta"):
                size = sum(p.numel() for p in model_class._from_config(config).parameters())
            if size > MAX_PARAMETERS:
                raise UntestedError(f"not made tiny ({size / 1e6:.0f} million parameters)")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return model_class._from_config(config, dtype=torch.float32).eval()
        except UntestedError:
            raise
        except Exception as error:  # a new class may fail in any way
            raise UntestedError(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}") from error


def _config_class(model_class: Any, name: str) -> Any:
    """The configuration of a class: its own, or where several share it the one that is registered for it."""
    if model_class.config_class is not None and model_class.config_class.model_type:
        return model_class.config_class
    return next(CONFIG_MAPPING[kind] for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in names)


def language_model_classes() -> Iterator[LMClass]:
    """Every class that `AutoModelForCausalLM` may build, and every other exported `*ForCausalLM`."""
    registered = {name for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _names(names)}
    exported = {name for name in dir(transformers) if name.endswith("ForCausalLM") and not name.startswith("Auto")}
    for name in sorted(registered | exported, key=str.lower):
        yield LMClass(name)
        yield from (LMClass(name, *variant) for variant in VARIANTS.get(name, ()))


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "BertLMHeadModel": [("`is_decoder`", {"is_decoder": True})],
    "Gemma4ForCausalLM": [("shared caches", {"num_kv_shared_layers": 2})],
}
"""Further rows: settings of a published model that the default configuration of its class lacks."""
