"""Frozen language models: loading them, and what is particular to one."""

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from c2c_lightning import embedded
from c2c_lightning.alignment.vocabulary import check_vocabulary
from c2c_lightning.data.encode import TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import ModelLoadError, PromptError, UnsupportedModelError
from c2c_lightning.kv.cache import Prefill
from c2c_lightning.kv.geometry import KVGeometry, probe_geometry, refuse_unfusable
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.ops.chunked_cross_entropy import OutputHead
from c2c_lightning.ops.ragged_attention import Packing, Rows, can_go_row_by_row, is_left_padded, row_by_row

logger = logging.getLogger(__name__)

#: What the attention of one more row costs in a layer beside its work: some 50 microseconds of calls at 100 GFLOP/s.
ROW_FLOP = 5_000_000

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


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
        quantization: how to quantise its weights while they are loaded, as transformers' `quantization_config`
            (`{quant_method: bitsandbytes, load_in_4bit: true}`). A checkpoint that is quantised already needs none.
    """

    path: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    prompt_template: str | PromptTemplate | None = None
    quantization: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def template(self) -> PromptTemplate | None:
        """The prompt template, loaded."""
        given = self.prompt_template
        return given if given is None or isinstance(given, PromptTemplate) else PromptTemplate.from_name_or_file(given)


class FrozenLM:
    """A causal language model that never changes, with its tokenizer.

    It is no `nn.Module`, so that it stays out of state dicts, optimizers, DDP and `train()` of whatever holds it.

    Attributes:
        model: the transformers causal LM, in eval mode, without gradients.
        tokenizer: its tokenizer.
        spec: how it was loaded.
        geometry: shapes of its KV-cache.
        is_sharded: whether several processes hold a part of each block. Every prefill is one whole pass then, however
            little there is to read: processes gather blocks together.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, spec: LMSpec) -> None:
        """Freeze a loaded model."""
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer, self.spec = tokenizer, spec
        self.geometry: KVGeometry = probe_geometry(model, spec.path)
        check_vocabulary(tokenizer, model, spec.path)
        self.is_sharded = False

    def __deepcopy__(self, memo: dict[int, object]) -> "FrozenLM":
        """Itself: a copy of a frozen model is the same model."""
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def runs_packed(self) -> bool:
        """Whether ragged rows are run as one, see `kv.packed`.

        On a CPU a look at the mask costs nothing and padding costs its tokens; on a GPU it is the other way round.
        """
        return self.device.type == "cpu" and not self.is_sharded and can_go_row_by_row(self.model)

    @cached_property
    def layer_flop(self) -> int:
        """FLOP of one token in one decoder layer, by the weights."""
        body = self.model.base_model  # without the output head
        return 2 * int(body.num_parameters(exclude_embeddings=True)) // self.geometry.num_layers

    def gains_by_packing(self, mask: Tensor) -> bool:
        """Whether the padding of `mask` (batch, columns) costs more than attention row by row."""
        if not self.runs_packed:
            return False
        padding = mask.numel() - int(mask.count_nonzero())
        return padding * self.layer_flop > len(mask) * ROW_FLOP

    @cached_property
    def head(self) -> OutputHead | None:
        """What makes logits of its last hidden states, where that is known."""
        return OutputHead.of(self.model)

    @property
    def blocks(self) -> list[nn.Module]:
        """Its decoder layers, the first one first.

        Raises:
            UnsupportedModelError: it has none that can be told from its other parts.
        """
        blocks: list[nn.Module] = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not blocks:
            raise UnsupportedModelError(
                f"{self.spec.path} ({type(self.model).__name__}) has no decoder layers of transformers' kind, so its "
                "activations cannot be checkpointed, nor its weights sharded."
            )
        return blocks

    @property
    def reading(self) -> TokenizerSpec:
        """How it reads conversations."""
        return tokenizer_spec(self.spec, self.tokenizer)

    @property
    def max_tokens(self) -> int | None:
        """Longest sequence that its positions allow, in tokens, where the config says."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def to(self, device: torch.device) -> None:
        """Move it, unless its spec ties it to a device."""
        if self.spec.device is None and self.device != device:
            self.model.to(device)

    def check_length(self, num_tokens: int) -> None:
        """Refuse a sequence that is longer than the model's context.

        Raises:
            PromptError: says how long it is and how long it may be.
        """
        if self.max_tokens is not None and num_tokens > self.max_tokens:
            raise PromptError(
                f"a sequence of {num_tokens} tokens is longer than the context of {self.spec.path} "
                f"({self.max_tokens} tokens). Shorten the prompt, or drop such rows with `data.max_length`."
            )

    def prefill(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        prefix: LayerStack | None = None,
        num_layers: int | None = None,
    ) -> LayerStack:
        """Keys and values of new tokens.

        Args:
            input_ids: (batch, new).
            attention_mask: (batch, prefix + new).
            position_ids: (batch, new).
            prefix: the cache so far.
            num_layers: how many layers are needed, from the first; default all.

        Returns:
            The new tokens' entries, on the model's device.
        """
        num_layers = self.geometry.num_layers if num_layers is None or self.is_sharded else num_layers
        ids, mask, positions = (tensor.to(self.device) for tensor in (input_ids, attention_mask, position_ids))
        prefill = Prefill(self.model, num_layers, to_end=self.is_sharded)
        if num_layers == 0 or input_ids.shape[1] == 0:
            if self.is_sharded:
                one = ids.new_zeros(1, 1)
                prefill.run(one, torch.ones_like(one), one)
            return self.empty_kv(len(input_ids))[:num_layers]
        if prefix is not None or not self.gains_by_packing(mask) or not mask.any() or not is_left_padded(mask):
            return prefill.run(ids, mask, positions, prefix)
        packing = Packing.of(mask.bool())
        with row_by_row(self.model, Rows(packing.lengths, (0,) * len(packing.lengths))):
            packed = prefill.run(packing.pack(ids), None, packing.pack(positions))
        return [packing.unpack_kv(layer) for layer in packed]

    def empty_kv(self, batch: int) -> LayerStack:
        """A cache over no tokens."""

        def zeros(heads: int, dim: int) -> Tensor:
            # The model's type is that of its floating-point weights; quantised ones are integers.
            return torch.zeros(batch, heads, 0, dim, dtype=self.model.dtype, device=self.device)

        layers = self.geometry.layers
        return [LayerKV(zeros(g.kv_heads, g.key_dim), zeros(g.kv_heads, g.value_dim)) for g in layers]


def tokenizer_spec(spec: LMSpec, tokenizer: PreTrainedTokenizerBase) -> TokenizerSpec:
    """How a model reads conversations: its tokenizer, and the prompt template of a base model."""
    return TokenizerSpec(tokenizer, spec.template, spec.chat_template_kwargs)


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
    logger.info("loading %s", spec.path)
    try:
        model = _load_model(spec, torch.device(spec.device or device or "cpu"))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelLoadError(_load_message("model", spec, error)) from error
    refuse_unfusable(model.config, spec.path)
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
    return folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES)


def _load_message(what: str, spec: LMSpec, error: Exception) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = "" if os.environ.get("HF_HUB_OFFLINE") != "1" else " (HF_HUB_OFFLINE=1: the hub is not asked)"
    kind = "directory" if Path(spec.path).exists() else "local directory or hub model"
    return (
        f"cannot load the {what} of {spec.path!r}{offline}: {cause} "
        f"Name a {kind} that holds config.json, weights and tokenizer, or `embedded:receiver`."
    )
