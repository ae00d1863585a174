"""Models on several devices, as far as that shows without a second device.

`meta` tensors carry a device and no numbers: whatever is put together on two devices fails there as it would on two
GPUs. They cannot be copied back, so each way is taken by itself.
"""

import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.packing import PackedKV, add_packed, pack
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_families import prompts
from tests.tiny import tiny_model, tiny_tokenizer

META = torch.device("meta")


def frozen(family: str, seed: int, device: str | None = None) -> FrozenLM:
    # With sdpa, the probe of the cache's shapes reads a mask.
    model = tiny_model(family, seed, attn_implementation="eager")
    return FrozenLM(model.to(device or "cpu"), tiny_tokenizer(), LMSpec(family, device=device))


def fused(receiver: FrozenLM, sharer: FrozenLM) -> C2CModel:
    return C2CModel(receiver, [sharer], FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0)).eval()


def devices(kv: LayerStack) -> set[torch.device]:
    return {entries.device for layer in kv for entries in (layer.keys, layer.values)}


def test_a_sharer_reads_and_keeps_its_tokens_where_it_is() -> None:
    model, prompt = fused(frozen("qwen3", 0), frozen("llama", 1, "meta")), prompts()
    (kv,) = model.prefill_sharers(prompt)
    assert kv is not None
    assert devices(kv) == {META}
    assert kv[0].num_tokens == prompt.num_receiver_tokens - 1
    model.to("cpu")
    assert model.sharers[0].device == META  # its spec says so


def test_entries_come_to_the_fuser_and_back_to_the_receiver() -> None:
    """Sharer, fuser and receiver each on a device of its own; the entries take the fuser's type on the way."""
    row, token, on_cpu = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0]), torch.zeros(2, 3, 4, 5)
    packed = pack([LayerKV(on_cpu, on_cpu)], row, token, like=torch.zeros(1, dtype=torch.float64, device=META))
    assert packed.keys.shape == (1, 3, 3, 5)
    assert packed.keys.device == packed.values.device == META
    assert packed.keys.dtype == torch.float64
    there = LayerKV(on_cpu.to(META), on_cpu.to(META))
    residual = PackedKV(torch.ones(1, 3, 3, 5), torch.ones(1, 3, 3, 5))
    fused = add_packed([there], row, token, residual)
    assert devices(fused) == {META}
    assert fused[0].keys.dtype == torch.float32


def test_moving_the_fuser_moves_all_that_is_not_tied_to_a_device() -> None:
    free = load_frozen((tiny_model("llama", 1), tiny_tokenizer()))
    model = fused(frozen("qwen3", 0, "cpu"), free).to("meta")
    assert model.receiver.device == torch.device("cpu")
    assert free.device == next(model.fuser.parameters()).device == META
