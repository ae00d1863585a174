"""Names a language model and the way it is loaded."""

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from c2c_lightning.data.encode import TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.fuser.config_checks import check_fields


@dataclass(frozen=True)
class LMSpec:
    """Which language model to load, and how.

    Attributes:
        path: a local directory, a hub id, or `embedded:NAME` for a model of the package.
        revision: hub revision (branch, tag or commit).
        dtype: type of its weights; `auto` keeps the checkpoint's.
        device: where it lives; default the fuser's device.
        prompt_template: chat template for a base model that has none: a named one or a path to a .jinja file. A fuser
            directory gives a `PromptTemplate`, which is never a path.
        chat_template_kwargs: arguments of its chat template for every conversation, such as `{enable_thinking: true}`
            (default false, as released).
        quantization: quantisation of its weights while they are loaded, as transformers' `quantization_config`
            (`{quant_method: bitsandbytes, load_in_4bit: true}`). A checkpoint that is quantised already needs none.
    """

    path: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    prompt_template: str | PromptTemplate | None = None
    quantization: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)

    @property
    def template(self) -> PromptTemplate | None:
        """The prompt template, loaded."""
        given = self.prompt_template
        return given if given is None or isinstance(given, PromptTemplate) else PromptTemplate.from_name_or_file(given)


def tokenizer_spec(spec: LMSpec, tokenizer: PreTrainedTokenizerBase) -> TokenizerSpec:
    """How a model reads conversations: its tokenizer, and the prompt template of a base model."""
    return TokenizerSpec(tokenizer, spec.template, spec.chat_template_kwargs)
