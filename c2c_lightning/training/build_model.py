"""The model that is trained: frozen language models and a fresh fuser, on a device or sharded over processes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy

from c2c_lightning.alignment.layer_alignment import LayerMap
from c2c_lightning.data.encode import Encoder
from c2c_lightning.export.description import FuserDescription, parse_config
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec, tokenizer_spec
from c2c_lightning.model.load_lm import load_frozen, load_tokenizer
from c2c_lightning.model.pretrained import reference
from c2c_lightning.training.compile_fuser import compile_fuser
from c2c_lightning.training.sharding import check_shardable, mesh_of, shard, shard_frozen
from c2c_lightning.training.train_model import TrainModel

FindLayers = Callable[[FrozenLM, Sequence[FrozenLM]], list[LayerMap]]
"""Given the loaded receiver and sharers, a layer map for each sharer."""


def build_encoder(receiver: LMSpec, sharers: Sequence[LMSpec], fuser: FuserConfig) -> Encoder:
    """An encoder of conversations, which needs the tokenizers only."""
    specs = [tokenizer_spec(spec, load_tokenizer(spec)) for spec in (receiver, *sharers)]
    return Encoder(specs[0], specs[1:], fuser.token_alignment)


def build_model(
    receiver: LMSpec,
    sharers: Sequence[LMSpec],
    config: FuserConfig,
    strategy: Strategy | None = None,
    shard_models: bool = False,
    compile_choice: bool | str = False,
    find_layers: FindLayers | None = None,
) -> TrainModel:
    """Load the frozen models and make a fuser, compiled and sharded if chosen.

    Args:
        receiver: the receiver.
        sharers: the sharers.
        config: the fuser's choices.
        strategy: chooses the device, and whether the fuser is sharded; default the CPU.
        shard_models: shard the frozen models too.
        compile_choice: see `compile_fuser`.
        find_layers: gives the layer map of `layer_alignment: correlated` or `answer` once the models are loaded.

    Raises:
        ConfigurationError: the strategy or the fuser's choices do not allow to shard.
    """
    mesh = None if strategy is None else mesh_of(strategy)
    device = torch.device("cpu") if strategy is None else strategy.root_device
    if shard_models:
        check_shardable(config, is_sharded=mesh is not None)
    # A model that is sharded need not fit on the device as a whole.
    first = load_frozen(receiver, "cpu" if shard_models else str(device))
    others = [
        first
        if spec == receiver and not reads_hidden  # *Identical*: the weights are loaded once
        else load_frozen(spec, "cpu" if shard_models else str(device), first.tokenizer)
        for spec, reads_hidden in zip(sharers, config.reads_hidden(len(sharers)), strict=True)
    ]
    if shard_models and mesh is not None:
        for lm in dict.fromkeys((first, *others)):
            shard_frozen(lm, mesh, device)
    if find_layers is not None and config.searches_layers:
        config = replace(config, layer_map=find_layers(first, others))
    model = TrainModel(first, others, config)
    if config.gate_noise == "none":
        freeze_gates(model.fuser)
    # Compiled before it is sharded, so that FSDP2's hooks stay outside of the compiled parts.
    compile_fuser(model.fuser, compile_choice)
    if mesh is not None:
        shard(model.to(device), mesh)
    return model


def freeze_gates(fuser: Fuser) -> None:
    """Exclude hard gates from training: they have no gradient, and weight decay would move them."""
    for _, _, *gates in fuser.gates():
        for gate in gates:
            gate.requires_grad_(False)


def arguments_of(checkpoint_path: Any) -> dict[str, Any]:
    """The arguments of `C2CModule` from the plain values in a checkpoint; the baseline as plain values."""
    # Memory-mapped, so that weights are read once.
    saved = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)["hyper_parameters"]
    return {
        "receiver": LMSpec(**saved["receiver"]),
        "sharers": [LMSpec(**spec) for spec in saved["sharers"]],
        "fuser": parse_config(saved["fuser"]),
        "baseline": saved.get("baseline", {}),
    }


def describe(model: TrainModel) -> FuserDescription:
    """The description of a model's fuser, as in a fuser directory."""
    sharers = tuple(reference(sharer) for sharer in model.sharers)
    return FuserDescription(model.fuser.config, reference(model.receiver), sharers)
