"""Compares this package with the released code's numbers, tensor by tensor.

`python -m tests.golden.parity` prints the table; `test_parity.py` asserts every row of it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.export import convert_released, load_fuser
from c2c_lightning.export.released.convert import groups_of
from c2c_lightning.export.released.projector_layout import released_name, unstack_layer
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

ASSETS = Path(__file__).parent.parent / "assets" / "golden"

CACHE, LOSS, LOGITS, GRADIENT = 1e-5, 1e-5, 1e-4, 1e-4


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: names of the golden tensors.
        tolerance: largest difference that is accepted; relative to the largest entry for gradients, 0 for tokens.
        maximum: largest difference that was measured.
    """

    what: str
    tolerance: float
    maximum: float


class Golden:
    """The recorded tensors, and our model with the same weights."""

    def __init__(self) -> None:
        self.tensors = load_file(ASSETS / "golden.safetensors")
        self.read: set[str] = set()
        self.notes: dict[str, Any] = json.loads((ASSETS / "golden.json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(ASSETS / "receiver")
        models = (AutoModelForCausalLM.from_pretrained(ASSETS / name) for name in ("receiver", "sharer"))
        receiver, sharer = (load_frozen((model, tokenizer)) for model in models)
        with TemporaryDirectory() as folder:
            saved = load_fuser(convert_released(ASSETS / "checkpoint", folder))
        self.model = C2CModel(receiver, [sharer], saved.description.config)
        self.model.fuser.load_state_dict(saved.fuser.state_dict())
        self.model.eval()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.tensors[name]

    def case(self, name: str) -> tuple[PromptBatch, Tensor]:
        """Prompt and response ids of `single.0`, `single.1` or `batch`."""
        fused, ids = int(self[f"{name}.section_lengths"][0]), self[f"{name}.input_ids"].long()
        assert (self[f"{name}.labels"][:, fused + 1 :] == ids[:, fused + 1 :]).all()
        return PromptBatch.shared(ids[:, : fused + 1]), ids[:, fused + 1 :]


def stacked(layers: Sequence[LayerKV]) -> Tensor:
    """(layers, 2, batch, kv_heads, tokens, head_dim), as it was recorded."""
    return torch.stack([torch.stack([kv.keys, kv.values]) for kv in layers])


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).detach().abs().max())


def cache_rows(golden: Golden, name: str) -> Iterator[Row]:
    """Clean caches of both models, and the fused cache by both ways to it."""
    prompt, _ = golden.case(name)
    tokens, fused = prompt.receiver, prompt.num_receiver_tokens - 1
    first = [part[:, :fused] for part in (tokens.input_ids, tokens.mask, tokens.positions)]
    for role, model in (("receiver", golden.model.receiver), ("sharer", golden.model.sharers[0])):
        what = f"{name}.{role}_kv"
        yield Row(what, CACHE, difference(stacked(model.prefill(*first)), golden[what]))
    if name == "batch":
        return
    cache = golden.model.fuse(prompt)
    ours = stacked([LayerKV(layer.keys, layer.values) for layer in cache.layers])
    yield Row(f"{name}.fused_kv", CACHE, difference(ours, golden[f"{name}.fused_kv"]))


def answer_rows(golden: Golden, name: str) -> Iterator[Row]:
    """Loss and logits on the fused cache, in evaluation mode; and without fusion."""
    prompt, response = golden.case(name)
    recorded = f"{name}.eval" if name == "batch" else name
    output = golden.model(prompt, response)
    yield Row(f"{recorded}.logits", LOGITS, difference(output.logits, golden[f"{recorded}.logits"]))
    yield Row(f"{recorded}.loss", LOSS, difference(output.loss, golden[f"{recorded}.loss"]))
    if name == "batch":
        fused = golden.model.fuse_prompt(prompt, golden.model.prefill_sharers(prompt)).fused_kv
        yield Row(f"{recorded}.fused_kv", CACHE, difference(stacked(fused), golden[f"{recorded}.fused_kv"]))
        return
    alone = golden.model(prompt, response, active_sharers=[])
    what = f"{name}.receiver_only_loss"
    yield Row(what, LOSS, difference(alone.loss, golden[what]))


def response_rows(golden: Golden) -> Iterator[Row]:
    """What the receiver adds to the fused cache when it reads the rest."""
    prompt, response = golden.case("single.0")
    fused = golden.model.fuse_prompt(prompt, golden.model.prefill_sharers(prompt)).fused_kv
    ids = torch.cat([prompt.receiver.input_ids[:, -1:], response], 1)
    begin, end = fused[0].num_tokens, fused[0].num_tokens + ids.shape[1]
    new = golden.model.receiver.prefill(
        ids, torch.ones(1, end, dtype=torch.long), torch.arange(begin, end)[None], fused
    )
    yield Row("single.0.response_kv", CACHE, difference(stacked(new), golden["single.0.response_kv"]))


def generation_rows(golden: Golden, name: str) -> Iterator[Row]:
    """Greedy tokens on the fused cache (end of sequence ignored) and of the receiver alone (end forbidden)."""
    prompt, _ = golden.case(name)
    config = golden.model.receiver.model.generation_config
    with mock.patch.object(config, "eos_token_id", None):
        ours = golden.model.generate(prompt, max_new_tokens=16, do_sample=False)
    new = ours[:, prompt.num_receiver_tokens :]
    yield Row(f"{name}.generated", 0, float((new != golden[f"{name}.generated"]).sum()))
    alone = golden.model.generate(prompt, active_sharers=[], max_new_tokens=16, do_sample=False, suppress_tokens=[2])
    what = f"{name}.receiver_only_generated"
    yield Row(what, 0, float((alone[:, prompt.num_receiver_tokens :] != golden[what]).sum()))


def recorded_noise(golden: Golden) -> Callable[..., Tensor]:
    """The recorded uniform draws in place of fresh ones, (layers, 2, batch, kv_heads, tokens)."""
    sides = ("key", "value")
    draws = [torch.stack([golden[f"batch.train.noise_{side}.{layer}"] for side in sides]) for layer in range(4)]
    return lambda *args, **kwargs: torch.stack(draws).squeeze(-1)


def training_rows(golden: Golden) -> Iterator[Row]:
    """Training mode with the recorded gate noise: cache, logits, loss and gradients."""
    prompt, response = golden.case("batch")
    golden.model.train()
    with mock.patch("c2c_lightning.fuser.c2c_kind.draw_uniform", recorded_noise(golden)):
        fused = golden.model.fuse_prompt(prompt, golden.model.prefill_sharers(prompt)).fused_kv
        yield Row("batch.train.fused_kv", CACHE, difference(stacked(fused), golden["batch.train.fused_kv"]))
        output = golden.model(prompt, response)
        yield from gradient_rows(golden, output.loss, "batch.train")
    golden.model.eval()
    yield Row("batch.train.logits", LOGITS, difference(output.logits, golden["batch.train.logits"]))
    yield Row("batch.train.loss", LOSS, difference(output.loss, golden["batch.train.loss"]))


def gradient_rows(golden: Golden, loss: Tensor, name: str) -> Iterator[Row]:
    """Recorded gradients, in full and as sums and norms; relative to each parameter's largest entry or its norm."""
    golden.model.zero_grad()
    loss.backward()
    ours = released_gradients(golden.model)
    full, norms = [], []
    for parameter, recorded in golden.notes[name]["grad"].items():
        gradient, norm = ours[parameter], recorded["norm"]
        scale = max(norm, 1e-6)
        norms += [abs(float(gradient.norm()) - norm) / scale, abs(float(gradient.sum()) - recorded["sum"]) / scale]
        if f"{name}.grad.{parameter}" in golden.tensors:
            theirs = golden[f"{name}.grad.{parameter}"]
            full.append(difference(gradient, theirs) / max(float(theirs.abs().max()), 1e-6))
    yield Row(f"{name}.grad.* ({len(full)} tensors)", GRADIENT, max(full))
    yield Row(f"{name} norms and sums of all {len(norms) // 2} gradients", GRADIENT, max(norms))
    unmoved = [key for key in golden.notes[name]["grad_is_all_zero"] if float(ours[key].abs().max()) > 0]
    yield Row(f"{name} gradients that are not zero but should be", 0, float(len(unmoved)))


def released_gradients(model: C2CModel) -> dict[str, Tensor]:
    """Our gradients under the authors' names; zero where nothing flows."""
    gradients: dict[str, Tensor] = {}
    for number, _, group in groups_of(model.fuser):
        settings = model.fuser.sharers[number].kind_config
        for name, parameter in group.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for index, layer in enumerate(group.receiver_layers):
                gradients[f"{layer}.{released_name(name, settings)}"] = unstack_layer(name, gradient, index)
    return gradients


def all_rows(golden: Golden) -> Iterator[Row]:
    """Every comparison."""
    for name in ("single.0", "single.1", "batch"):
        yield from cache_rows(golden, name)
        yield from answer_rows(golden, name)
    yield from response_rows(golden)
    for name in ("single.0", "single.1"):
        yield from generation_rows(golden, name)
    prompt, response = golden.case("batch")
    yield from gradient_rows(golden, golden.model(prompt, response).loss, "batch.eval")
    yield from training_rows(golden)


def main() -> None:
    """Print the table."""
    print("| golden tensor | tolerance | largest difference |\n| --- | --- | --- |")
    for row in all_rows(Golden()):
        print(f"| {row.what} | {row.tolerance:.0e} | {row.maximum:.1e} |")


if __name__ == "__main__":
    main()
