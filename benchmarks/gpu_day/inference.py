"""Inference at the paper's sizes: the fuser, prefill, decoding, whole answers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Journal, Refuted, Result, Skipped
from benchmarks.gpu_day.kernels import launches
from benchmarks.gpu_day.pairs import build, context, free, paper_pair
from benchmarks.gpu_day.prediction import prompt_seconds
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.kind import _REGISTERED
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.profiling.answer_latency import AnswerLatency
from c2c_lightning.profiling.benchmark import smallest_vocabulary
from c2c_lightning.profiling.decode_latency import DecodeLatency
from c2c_lightning.profiling.prefill_latency import first_logits, own_prefills
from c2c_lightning.profiling.timing import interleaved
from c2c_lightning.profiling.workload import equal_batch

PRECISIONS = {"float32": "highest", "tf32": "high"}
"""Settings of `torch.set_float32_matmul_precision`: without TF32 (PyTorch's default), with TF32."""


def run(day: Day, journal: Journal) -> None:
    """Measure everything."""
    models: dict[str, C2CModel] = {}
    journal.check("build", lambda: models.update(c2c=build(day, paper_pair(day))))
    model = models["c2c"]
    for tokens in lengths(day):
        for precision in PRECISIONS:
            journal.check(
                f"prefill, {tokens} tokens, {precision}", partial(prefill_parts, day, model, tokens, precision)
            )
        journal.check(f"launches, {tokens} tokens", partial(_launches, day, model, tokens))
        journal.check(f"CUDA graph of the fuser, {tokens} tokens", partial(cuda_graph, day, model, tokens))
    journal.check("the fuser in bfloat16", lambda: bfloat16_fuser(day, model))
    journal.check("launches of a decoded token", lambda: _token_launches(day, model))
    journal.check("decoding", lambda: _decoding(day, model))
    journal.check("whole answers", lambda: _answers(day, model))
    models.clear()
    del model
    free(day)
    for kind in sorted(_REGISTERED):
        journal.check(f"fuser kind {kind}", partial(_kind, day, kind))
        free(day)


def lengths(day: Day) -> tuple[int, int]:
    """Tokens of the paper's latency table, and of its longest prompts."""
    return (17, 40) if day.is_tiny else (170, 2048)


def prompt_of(day: Day, model: C2CModel, tokens: int, rows: int = 1) -> PromptBatch:
    """Random prompts on the device."""
    return equal_batch(rows, tokens, 1, smallest_vocabulary(model)).prompt.to(day.device)


def caches(model: C2CModel, prompt: PromptBatch) -> tuple[LayerStack, SharerKV]:
    """The receiver's and the sharers' caches before fusion."""
    start = PrefillState.empty(model.receiver, prompt.receiver)
    kv = start.prefill(model.receiver, prompt.num_receiver_tokens - 1).fused_kv
    return kv, model.prefill_sharers(prompt)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """While it lasts, float32 matrix products with or without TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.no_grad()
def prefill_parts(day: Day, model: C2CModel, tokens: int, precision: str) -> Result:
    """Milliseconds of each part, and of the whole way to the first logits; predicted ones beside them."""
    prompt = prompt_of(day, model, tokens)
    receiver_kv, sharer_kv = caches(model, prompt)
    start = PrefillState.empty(model.receiver, prompt.receiver)
    receiver, sharer = own_prefills(model, prompt)
    works: Mapping[str, Callable[[], object]] = {
        "fuser": lambda: model.fuser(receiver_kv, sharer_kv, prompt.plan.one_pass[0]),
        "receiver_prefill": lambda: start.prefill(model.receiver, tokens - 1).fused_kv,
        "sharer_prefill": lambda: model.prefill_sharers(prompt),
        "first_logits_fused": lambda: first_logits(model, prompt),
        "first_logits_receiver": receiver,
        "first_logits_sharer": sharer,
    }
    with float32_products(precision):
        times = interleaved(works, 3 if day.is_tiny else 15)
    return {
        "tokens": tokens,
        "ms": {name: timed.seconds * 1e3 for name, timed in times.items()},
        "fastest_ms": {name: min(timed.wall) * 1e3 for name, timed in times.items()},
        "predicted_ms": {k: v * 1e3 for k, v in prompt_seconds(day, model, tokens - 1, precision == "tf32").items()},
    }


@torch.no_grad()
def _launches(day: Day, model: C2CModel, tokens: int) -> Result:
    prompt = prompt_of(day, model, tokens)
    receiver_kv, sharer_kv = caches(model, prompt)
    return {
        "fuser": launches(day, lambda: model.fuser(receiver_kv, sharer_kv, prompt.plan.one_pass[0])),
        "first_logits": launches(day, lambda: first_logits(model, prompt)),
    }


@torch.no_grad()
def cuda_graph(day: Day, model: C2CModel, tokens: int) -> Result:
    """The fuser recorded once and replayed: the same entries, without the time of its launches."""
    if not day.is_cuda:
        raise Skipped("needs a GPU")
    prompt = prompt_of(day, model, tokens)
    receiver_kv, sharer_kv = caches(model, prompt)
    step = prompt.plan.one_pass[0]

    def work() -> LayerStack:
        return model.fuser(receiver_kv, sharer_kv, step)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    graph.replay()
    pairs = zip(found, expected, strict=True)
    largest = max(float((ours.keys - theirs.keys).abs().max()) for ours, theirs in pairs)
    times = interleaved({"eager": work, "graph": graph.replay}, 15)
    result: Result = {"largest_difference": largest, "ms": {n: t.seconds * 1e3 for n, t in times.items()}}
    if largest:
        raise Refuted("the replayed entries differ", result)
    return result


@torch.no_grad()
def bfloat16_fuser(day: Day, model: C2CModel) -> Result:
    """Milliseconds of the fuser with its weights in bfloat16; they are float32 again afterwards."""
    result: Result = {}
    model.fuser.to(torch.bfloat16)
    for tokens in lengths(day):
        prompt = prompt_of(day, model, tokens)
        work = partial(model.fuser, *caches(model, prompt), prompt.plan.one_pass[0])
        result[f"ms_{tokens}"] = interleaved({"fuser": work}, 2 if day.is_tiny else 15)["fuser"].seconds * 1e3
    model.fuser.float()
    return result


def _token_launches(day: Day, model: C2CModel) -> Result:
    """Launches and busy time of the device for one token more, on the fused cache and by the receiver alone."""
    prompt = prompt_of(day, model, lengths(day)[0])
    tokens = prompt.receiver

    def generate(is_fused: bool, count: int) -> Callable[[], object]:
        kwargs: Any = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        if is_fused:
            return lambda: model.generate(prompt, **kwargs)
        return lambda: model.receiver.model.generate(tokens.input_ids, attention_mask=tokens.mask, **kwargs)

    result: Result = {}
    for name, is_fused in (("c2c", True), ("receiver", False)):
        short, long = (launches(day, generate(is_fused, count)) for count in (2, 10))
        counted = (key for key in short if key != "kernels")
        result[name] = {key: (long[key] - short[key]) / 8 for key in counted}
    return result


def _decoding(day: Day, model: C2CModel) -> Result:
    tokens, new = (17, 4) if day.is_tiny else (170, 48)
    return DecodeLatency(tokens, new, rounds=2 if day.is_tiny else 4).run(context(day, model))


def _answers(day: Day, model: C2CModel) -> Result:
    """The paper's table 3: 170 tokens read, 12 written; in text-to-text the sharer writes 80."""
    if day.is_tiny:
        return AnswerLatency(17, 6, 4, rounds=1).run(context(day, model))
    return AnswerLatency(170, 80, 12, rounds=4).run(context(day, model))


@torch.no_grad()
def _kind(day: Day, kind: str) -> Result:
    """Size of a fuser kind with its default settings, and its time for one prompt."""
    model = build(day, paper_pair(day, kind=kind))
    result: dict[str, Any] = {"million_parameters": sum(p.numel() for p in model.fuser.parameters()) / 1e6}
    for tokens in lengths(day):
        prompt = prompt_of(day, model, tokens)
        receiver_kv, sharer_kv = caches(model, prompt)
        work = partial(model.fuser, receiver_kv, sharer_kv, prompt.plan.one_pass[0])
        for precision in PRECISIONS:
            with float32_products(precision):
                timed = interleaved({"fuser": work}, 2 if day.is_tiny else 8)["fuser"]
            result[f"ms_{tokens}_{precision}"] = timed.seconds * 1e3
    return result
