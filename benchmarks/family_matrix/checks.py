"""The checks of the family matrix: a tiny model as receiver and as sharer of another."""

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.family_matrix.tiny_config import VOCAB, WINDOW
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec

LENGTHS = (WINDOW + 9, WINDOW + 2, 5)
"""Prompts longer than a window, and one that fits into it."""

NEW_TOKENS = 5
MODES = ("prefill", "prompt", "decode")


class CheckError(AssertionError):
    """A property that must hold for every accepted model and does not."""


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One tokenizer for all models: the checks run on token ids."""
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def partner() -> Any:
    """A tiny Llama, the other model of every pair."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, max_position_embeddings=512, initializer_range=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return LlamaForCausalLM(config).eval()


def frozen(model: Any) -> FrozenLM:
    """A loaded model as `load_frozen` gives it.

    Raises:
        UnsupportedModelError: it cannot take part.
    """
    return FrozenLM(model, tokenizer(), LMSpec(type(model).__name__))


def fused_pair(receiver: FrozenLM, sharer: FrozenLM, mode: str) -> C2CModel:
    """A random fuser with all gates open."""
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = C2CModel(receiver, [sharer], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def prompts() -> PromptBatch:
    """A left-padded batch of prompts of unequal lengths."""
    width = max(LENGTHS)
    ids = torch.randint(3, 300, (len(LENGTHS), width), generator=torch.Generator().manual_seed(5))
    mask = torch.stack([torch.arange(width) >= width - length for length in LENGTHS]).long()
    return PromptBatch.shared(ids * mask, mask)


def check_pair(model: C2CModel) -> None:
    """All checks of one pair in one fusion mode.

    Raises:
        CheckError: a property that does not hold.
    """
    closed_gates_are_the_bare_receiver(model)
    answers = generate(model, prompts())
    alone_is_as_in_a_batch(model, answers)
    teacher_forcing_agrees_with_generation(model, answers)
    only_the_fuser_gets_gradients(model)


def generate(model: C2CModel, prompt: PromptBatch) -> Tensor:
    """Greedy answers, (batch, new tokens)."""
    ids: Tensor = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    return ids[:, -NEW_TOKENS:]


def closed_gates_are_the_bare_receiver(model: C2CModel) -> None:
    """With closed gates the answers are the receiver's own, token for token; with open gates others."""
    prompt = prompts()
    bare = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.mask}
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "use_cache": True}
    expected = model.receiver.model.generate(**bare, **settings)[:, -NEW_TOKENS:]
    fused_logits = _logits(model, expected)
    model.fuser.force_gates(is_open=False)
    closed, own_logits = generate(model, prompt), _logits(model, expected)
    model.fuser.force_gates(is_open=True)
    _require(torch.equal(closed, expected), "with closed gates the answers are not the receiver's own")
    _require(bool((fused_logits - own_logits).abs().max() > 1e-2), "the fused cache does not change the logits")


@torch.no_grad()
def _logits(model: C2CModel, answers: Tensor) -> Tensor:
    logits: Tensor = model(prompts(), answers).logits
    return logits


def alone_is_as_in_a_batch(model: C2CModel, answers: Tensor) -> None:
    """A prompt without padding is answered as in a padded batch."""
    ids = prompts().receiver.input_ids
    for row, length in list(enumerate(LENGTHS))[1:]:
        alone = PromptBatch.shared(ids[row : row + 1, -length:])
        same = _same_answer(model, alone, answers[row : row + 1], generate(model, alone))
        _require(same, "a prompt alone is answered otherwise than in a padded batch")


@torch.no_grad()
def _same_answer(model: C2CModel, prompt: PromptBatch, one: Tensor, other: Tensor) -> bool:
    """Whether two answers are equal up to the first token at which two tokens are equally probable."""
    if torch.equal(one, other):
        return True
    first = int((one != other)[0].int().argmax())
    logits = model(prompt, one).logits[0, first]
    # Another split of the same sums decides between them.
    return bool((logits[one[0, first]] - logits[other[0, first]]).abs() < 1e-4)


@torch.no_grad()
def teacher_forcing_agrees_with_generation(model: C2CModel, answers: Tensor) -> None:
    """The most probable tokens of a teacher-forced pass are the generated ones."""
    logits = _logits(model, answers)[:, :-1]
    chosen = logits.gather(2, answers[..., None])[..., 0]
    _require(bool((logits.amax(-1) - chosen).max() < 1e-4), "teacher forcing predicts other tokens than generation")


def only_the_fuser_gets_gradients(model: C2CModel) -> None:
    """Every weight of the fuser has a finite gradient, and no weight of a language model has one."""
    prompt = prompts()
    model.fuser.zero_grad()
    model(prompt, prompt.receiver.input_ids[:, :NEW_TOKENS]).loss.backward()
    weights = [p for name, p in model.fuser.named_parameters() if not name.endswith("gate.logit")]
    finite = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in weights)
    _require(finite, "a weight of the fuser has no finite gradient")
    _require(any(bool(p.grad.any()) for p in weights if p.grad is not None), "no gradient reaches the fuser")
    own = [p for lm in (model.receiver, *model.sharers) for p in lm.model.parameters()]
    _require(all(p.grad is None for p in own), "a language model has gradients")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise CheckError(message)
