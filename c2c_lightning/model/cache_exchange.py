"""Sharer caches that leave the process of the sharer, and their use in the process of the receiver."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from c2c_lightning.channel.sharer_cache import SharerCache
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import ChannelError
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.model_fingerprint import model_fingerprint


def read_tokens(model: C2CCore, prompt: PromptBatch, number: int) -> Bool[Tensor, "batch columns"]:
    """Which tokens of a sharer's prompt some receiver token is fused with, (batch, columns)."""
    return prompt.sharers[number].is_read(with_last=model.mode.fuses_last_prompt_token)


def prompt_bytes(model: C2CCore, prompt: PromptBatch, number: int) -> Float[Tensor, " batch"]:
    """Bytes that a sharer sends for each prompt, before compression: read tokens of mapped layers, as configured."""
    sharer, channel = model.sharers[number], model.fuser.config.channel.channel
    layers = model.fuser.sharers[number].read_layers
    entry_bytes = sharer.empty_kv(1)[0].keys.element_size()
    per_token = sum(channel.token_bytes(_sent(model, number).layers[m], entry_bytes) for m in layers)
    return read_tokens(model, prompt, number).sum(1) * float(per_token)


def _sent(model: C2CCore, number: int) -> KVGeometry:
    """Shapes of what a sharer sends."""
    geometry = model.sharers[number].geometry
    if not model.fuser.sharers[number].reads_hidden or geometry.hidden_size is None:
        return geometry
    return KVGeometry((LayerGeometry(1, geometry.hidden_size, 0),) * geometry.num_layers)


def sharer_caches(
    model: C2CCore, prompt: PromptBatch, active_sharers: Sequence[int] | None = None
) -> list[SharerCache | None]:
    """Run the sharers over their prompts and keep what the fuser reads; None for a sharer that is left out.

    Args:
        model: receiver, sharers and fuser; the receiver is not run.
        prompt: the prompts.
        active_sharers: indices of the sharers that take part; default all.

    Raises:
        ChannelError: a fusion mode in which the sharers run along with the response.
    """
    if model.mode.fuses_response:
        raise ChannelError(
            "in fusion mode `decode` the sharer runs along with the response, so its cache cannot be sent once. Use "
            "`fusion_mode: prefill` or `prompt`."
        )
    stacks = model.prefill_sharers(prompt.to(model.receiver.device), active_sharers)
    return [None if kv is None else _collect(model, prompt, number, kv) for number, kv in enumerate(stacks)]


def _collect(model: C2CCore, prompt: PromptBatch, number: int, kv: LayerStack) -> SharerCache:
    layers = sorted(model.fuser.sharers[number].read_layers)
    is_read = read_tokens(model, prompt, number)
    return SharerCache.collect(kv, is_read, layers, model_fingerprint(model.sharers[number]))


def received_kv(model: C2CCore, caches: Sequence[SharerCache | None]) -> list[LayerStack | None]:
    """Caches as the `sharer_kv` of `C2CModel.generate`, on the receiver's device.

    Raises:
        ChannelError: a cache of another model than the sharer, or another number of caches.
    """
    if len(caches) != len(model.sharers):
        raise ChannelError(f"there are {len(caches)} caches for {len(model.sharers)} sharers. Give one for each.")
    return [None if cache is None else _received(model, n, cache) for n, cache in enumerate(caches)]


def _received(model: C2CCore, number: int, cache: SharerCache) -> LayerStack:
    sharer, part = model.sharers[number], model.fuser.sharers[number]
    if cache.fingerprint != model_fingerprint(sharer):
        raise ChannelError(
            f"the cache was made by another model than sharer {number} of this fuser ({sharer.spec.path}): fingerprint "
            f"{cache.fingerprint[:12]}, not {model_fingerprint(sharer)[:12]}. Load the same checkpoint on both sides."
        )
    missing = part.read_layers - set(cache.entries)
    if missing:
        raise ChannelError(f"the cache lacks the layers {sorted(missing)}, which this fuser reads.")
    return cache.to_stack(sharer.geometry, part.num_sharer_layers, model.receiver.device)
