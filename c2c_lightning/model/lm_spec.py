"""Names a language model and the way it is loaded."""

from dataclasses import dataclass
from typing import Any, Literal, Self

from transformers import PreTrainedTokenizerBase

from c2c_lightning.channel.sharer_link import OnMissing
from c2c_lightning.data.encode import TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range


@dataclass(frozen=True)
class LMSpec:
    """Which language model to load, and how.

    Attributes:
        path: a local directory, a hub id, or `embedded:NAME` for a model of the package. Only the tokenizer is loaded
            from there where `url` is set; a fuser directory then knows the path.
        revision: hub revision (branch, tag or commit).
        dtype: type of its weights; `auto` keeps the checkpoint's.
        device: where it lives; default the fuser's device.
        prompt_template: chat template for a base model that has none: a named one or a path to a .jinja file. A fuser
            directory gives a `PromptTemplate`, which is never a path.
        chat_template_kwargs: arguments of its chat template for every conversation, such as `{enable_thinking: true}`
            (default false, as released).
        quantization: quantisation of its weights while they are loaded, as transformers' `quantization_config`
            (`{quant_method: bitsandbytes, load_in_4bit: true}`). A checkpoint that is quantised already needs none.
        url: `http://HOST:PORT` of a sharer that `lightning sharer` runs in another process.
        bits: precision in which that process sends its cache, 32 (unchanged), 16, 8 or 4.
        group: channels that share a scale, for 8 and 4 bits.
        on_missing: whether a sharer that does not answer is an error (`refuse`), or is left out of a prompt
            (`receiver_alone`).
    """

    path: str = ""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    prompt_template: str | PromptTemplate | None = None
    quantization: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    url: str | None = None
    bits: Literal[32, 16, 8, 4] = 32
    group: int = 64
    on_missing: OnMissing = "refuse"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("group",), 1, 2**20)
        if not self.path and self.url is None:
            raise FuserConfigError("a language model has no `path`. Name a local directory or hub id, or a `url`.")

    @classmethod
    def named(cls, name: str, path: str, revision: str | None = None) -> Self:
        """A model by what a user calls it: a path or hub id, or the URL of a process that runs the model at `path`."""
        if name.startswith(("http://", "https://")):
            return cls(path, revision, url=name)
        return cls(name)

    @property
    def template(self) -> PromptTemplate | None:
        """The prompt template, loaded."""
        given = self.prompt_template
        return given if given is None or isinstance(given, PromptTemplate) else PromptTemplate.from_name_or_file(given)


def tokenizer_spec(spec: LMSpec, tokenizer: PreTrainedTokenizerBase) -> TokenizerSpec:
    """How a model reads conversations: its tokenizer, and the prompt template of a base model."""
    return TokenizerSpec(tokenizer, spec.template, spec.chat_template_kwargs)
