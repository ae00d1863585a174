"""Times one checkout of c2c_lightning for `compare_checkouts`; uses only names that every version has.

Run as a script with `PYTHONPATH` set to the checkout. Each line on standard input is a request in JSON (a dictionary of
`Request`), each line on standard output its seconds by name, or its peak memory.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.nn.utils import clip_grad_norm_
from torch.utils.benchmark import timer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from c2c_lightning import C2CModel, FuserConfig, PromptBatch, TrainingBatch

try:
    from c2c_lightning.model.load_lm import load_frozen
except ImportError:  # version 0.1
    from c2c_lightning.model.frozen import load_frozen


@dataclass(frozen=True)
class Request:
    """One measurement.

    Attributes:
        work: `train`, `peak`, `prefill` or `decode`.
        pair: sizes of the models and the fuser, in JSON: `receiver`, `sharers`, `fuser`.
        lengths: (prompt, response) tokens of each example; for `prefill` and `decode` of the one prompt.
        mode: the fusion mode.
        batch_size: examples of a training step.
        repeats: how often `prefill` and `decode` are run; the fastest counts.
        device: where to compute.
    """

    work: str
    pair: str
    lengths: tuple[tuple[int, int], ...]
    mode: str = "prefill"
    batch_size: int = 4
    repeats: int = 1
    device: str = "cpu"


def main() -> None:
    """Answer requests until standard input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        options = json.loads(line)
        request = Request(**{**options, "lengths": tuple(map(tuple, options["lengths"]))})
        print(json.dumps(WORKS[request.work](request)), flush=True)


@cache
def build(pair: str, device: str) -> C2CModel:
    """The pair with random weights and a fresh fuser."""
    torch.manual_seed(0)
    sizes = json.loads(pair)
    receiver, *sharers = (_language_model(lm) for lm in (sizes["receiver"], *sizes["sharers"]))
    return C2CModel(receiver, sharers, FuserConfig(**sizes["fuser"])).to(device)


def _language_model(sizes: dict[str, Any]) -> Any:
    config = AutoConfig.for_model(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    words = {"<pad>": 0} | {str(number): number for number in range(1, config.vocab_size)}
    backend = Tokenizer(WordLevel(words, unk_token="<pad>"))
    return load_frozen((model, PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")))


def _prepare(request: Request) -> C2CModel:
    model = build(request.pair, request.device)
    model.fuser.config = dataclasses.replace(model.fuser.config, fusion_mode=request.mode)
    return model


@cache
def batches_of(request: Request) -> list[TrainingBatch]:
    """The training batches; prompts padded on the left, responses on the right."""
    vocab = json.loads(request.pair)["receiver"]["vocab_size"]
    random = torch.Generator().manual_seed(0)
    batches = []
    for start in range(0, len(request.lengths), request.batch_size):
        lengths = torch.tensor(request.lengths[start : start + request.batch_size])
        prompt, response = (torch.arange(int(n.max())) < n[:, None] for n in lengths.T)
        prompt = prompt.flip(1)
        prompt_ids, response_ids = (torch.randint(4, vocab, m.shape, generator=random) * m for m in (prompt, response))
        batches.append(TrainingBatch(PromptBatch.shared(prompt_ids, prompt.long()), response_ids, response))
    return [batch.to(request.device) for batch in batches]


class Steps:
    """Optimizer steps over the batches of a request."""

    def __init__(self, request: Request) -> None:
        self.model, self.batches = _prepare(request), batches_of(request)
        self.parameters = list(self.model.fuser.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, batch: TrainingBatch) -> None:
        """One optimizer step."""
        self.model.train()
        (self.model.response_loss(batch) / batch.response_mask.sum()).backward()
        clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def run(self) -> None:
        """A step on each batch."""
        for batch in self.batches:
            self.step(batch)


@cache
def _warm_steps(request: Request) -> Steps:
    steps = Steps(request)
    steps.run()  # creates the optimizer's state, and lets the allocator grow
    return steps


def time_training(request: Request) -> dict[str, float]:
    """Seconds of the optimizer step on each batch."""
    steps = _warm_steps(request)
    _prepare(request)  # the fusion mode: the model is shared by the requests
    return {f"batch {n}": seconds(partial(steps.step, b), request.device) for n, b in enumerate(steps.batches)}


def peak_memory(request: Request) -> dict[str, float]:
    """MiB above the loaded models at the highest point of all steps; needs a process of its own."""
    if request.device != "cpu":
        model = _prepare(request)
        before = torch.cuda.memory_allocated(model.receiver.device)
        Steps(request).run()
        return {"peak_mib": (torch.cuda.max_memory_allocated(model.receiver.device) - before) / 2**20}
    _prepare(request), batches_of(request)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    Steps(request).run()
    return {"peak_mib": (_status("VmHWM") - before) / 1024}


def _status(name: str) -> int:
    """A field of this process's memory status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@torch.no_grad()
def time_prefill(request: Request) -> dict[str, float]:
    """Seconds to the first logits on the fused cache, and of each model's own prefill."""
    model = _prepare(request).eval()
    prompt = batches_of(request)[0].prompt
    ids, positions = prompt.receiver.input_ids, prompt.receiver.position_ids

    def fused() -> None:
        last = {"input_ids": ids[:, -1:], "position_ids": positions[:, -1:]}
        model.receiver.model(**last, attention_mask=prompt.receiver.attention_mask, past_key_values=model.fuse(prompt))

    def alone() -> None:
        for lm in (model.receiver, *model.sharers):
            lm.model(input_ids=ids, use_cache=True, logits_to_keep=1)

    return _in_turns({"fused": fused, "alone": alone}, request)


@torch.no_grad()
def time_decode(request: Request) -> dict[str, float]:
    """Seconds of `generate` on the fused cache, and of the receiver's own; both without their prefill."""
    model = _prepare(request).eval()
    prompt, new_tokens = batches_of(request)[0].prompt, request.lengths[0][1]
    kwargs: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}
    own = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.attention_mask, **kwargs}

    def fused(count: int) -> None:
        model.generate(prompt, max_new_tokens=count, min_new_tokens=count, **kwargs)

    def alone(count: int) -> None:
        model.receiver.model.generate(**own, max_new_tokens=count, min_new_tokens=count)

    long = _in_turns({"fused": partial(fused, new_tokens), "alone": partial(alone, new_tokens)}, request)
    short = _in_turns({"fused": partial(fused, 1), "alone": partial(alone, 1)}, request)
    return {name: long[name] - short[name] for name in long}


def _in_turns(works: dict[str, Callable[[], object]], request: Request) -> dict[str, float]:
    """Seconds of each work in the fastest of several turns; a first turn is not measured."""
    turns = [{name: seconds(work, request.device) for name, work in works.items()} for _ in range(1 + request.repeats)]
    return {name: min(turn[name] for turn in turns[1:]) for name in works}


def seconds(work: Callable[[], object], device: str) -> float:
    """CPU time of this process, so that other programs count little; on a GPU the wall clock."""
    clock = time.process_time if device == "cpu" else timer
    begin = clock()
    work()
    return clock() - begin


def time_product(request: Request) -> dict[str, float]:
    """Seconds of ten products of square matrices with 1,024 rows, in float32."""
    a, b, out = (torch.randn(1024, 1024, device=request.device) for _ in range(3))
    torch.mm(a, b, out=out)

    def products() -> None:
        for _ in range(10):
            torch.mm(a, b, out=out)

    return {"product": seconds(products, request.device)}


WORKS = {
    "train": time_training,
    "peak": peak_memory,
    "prefill": time_prefill,
    "decode": time_decode,
    "product": time_product,
}

if __name__ == "__main__":
    main()
