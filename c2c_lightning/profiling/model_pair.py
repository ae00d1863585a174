"""The models of a benchmark: random ones of given sizes, or pretrained ones."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen

_PAD = "<pad>"
# Words with a role: 1 and 2 start a message of the assistant and of others, 3 ends a message.
_TEMPLATE = (
    "{% for m in messages %}{{ '1 ' if m['role'] == 'assistant' else '2 ' }}{{ m['content'] }} 3 {% endfor %}"
    "{% if add_generation_prompt %}1 {% endif %}"
)
FIRST_WORD = 4
"""The first word without a role in the chat template of a random pair."""


@runtime_checkable
class Pair(Protocol):
    """Something that a fused model can be built from."""

    def build(self, device: str) -> C2CModel:
        """The fused model, on `device`, with a fresh fuser."""
        ...


@dataclass(frozen=True)
class RandomPair:
    """Models of given sizes with random weights, which take as long as trained ones.

    Both read the same tokens: token n is the word "n".

    Attributes:
        receiver: a transformers configuration, `model_type` and its fields.
        sharers: likewise, one for each sharer.
        fuser: the fuser's choices.
        dtype: type of the models' weights; the fuser is float32.
        attention: transformers' name of the attention to use.
        seed: of all weights.
    """

    receiver: dict[str, Any]
    sharers: list[dict[str, Any]]
    fuser: FuserConfig = field(default_factory=FuserConfig)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str = "sdpa"
    seed: int = 0

    def build(self, device: str) -> C2CModel:
        """As `Pair.build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            receiver, *sharers = (self._frozen(sizes) for sizes in (self.receiver, *self.sharers))
            return C2CModel(receiver, sharers, self.fuser).to(device)

    def _frozen(self, sizes: dict[str, Any]) -> FrozenLM:
        try:
            # No end of text, so that every answer is as long as it is asked to be.
            config = AutoConfig.for_model(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"no model can be made of {sizes}: {error}") from error
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, self.dtype), attn_implementation=self.attention
        )
        return FrozenLM(model, number_tokenizer(config.vocab_size), LMSpec(f"random {config.model_type}"))


@dataclass(frozen=True)
class LoadedPair:
    """Real models.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        fuser: the fuser's choices.
        seed: of the fuser's weights.
    """

    receiver: LMSpec
    sharers: list[LMSpec]
    fuser: FuserConfig = field(default_factory=FuserConfig)
    seed: int = 0

    def build(self, device: str) -> C2CModel:
        """As `Pair.build`."""
        receiver = load_frozen(self.receiver, device)
        sharers = [load_frozen(spec, device, receiver.tokenizer) for spec in self.sharers]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return C2CModel(receiver, sharers, self.fuser).to(device)


def number_tokenizer(vocab_size: int) -> PreTrainedTokenizerBase:
    """A tokenizer whose token n is the word "n"; it has no end of text, and token 0 is padding and unknown words."""
    # Not "0": special tokens are found inside words too.
    vocabulary = {_PAD: 0} | {str(number): number for number in range(1, vocab_size)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=_PAD))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=_PAD, unk_token=_PAD, padding_side="left")
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
