"""torch.compile of the fuser: the same numbers, and the time it saves."""

import time
from functools import partial

import torch

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.inference import caches, float32_products, lengths, prompt_of
from benchmarks.gpu_day.journal import Journal, Refuted, Result
from benchmarks.gpu_day.pairs import build, paper_pair, small_batches, small_model
from benchmarks.gpu_day.training_step import Steps, _seconds, recipe_batches, trained
from c2c_lightning.model.tf32 import prefer_tf32
from c2c_lightning.profiling.timing import interleaved
from c2c_lightning.training.compile_fuser import compile_fuser


def run(day: Day, journal: Journal) -> None:
    """Check, then measure."""
    prefer_tf32(torch.device(day.device))
    with float32_products("float32"):
        journal.check("the compiled fuser gives the same numbers", lambda: _same(day))
    journal.check("inference", lambda: _inference(day))
    journal.check("recipe, tf32, compiled", lambda: _training(day))


def _backend(day: Day) -> str:
    """Without a GPU no compiler is needed."""
    return "inductor" if day.is_cuda else "aot_eager"


def _same(day: Day) -> Result:
    results = {}
    for name in ("plain", "compiled"):
        model, batch = small_model(day.device), small_batches(day.device)[0]
        if name == "compiled":
            compile_fuser(model.fuser, _backend(day))
        loss = model.response_loss(batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.fuser.parameters() if p.grad is not None])
        results[name] = loss.detach(), gradient
    pairs = zip(results["compiled"], results["plain"], strict=True)
    shares = [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs]
    result: Result = {"loss": shares[0], "gradient": shares[1], "tolerance": 1e-4}
    if max(shares) > 1e-4:
        raise Refuted(f"relative differences {shares}", result)
    return result


@torch.no_grad()
def _inference(day: Day) -> Result:
    model, result = build(day, paper_pair(day)), {}
    begin = time.perf_counter()
    compile_fuser(model.fuser, _backend(day))
    for tokens in lengths(day):
        prompt = prompt_of(day, model, tokens)
        receiver_kv, sharer_kv = caches(model, prompt)
        work = partial(model.fuser, receiver_kv, sharer_kv, prompt.plan.one_pass[0])
        with float32_products("tf32"):
            work()
            result.setdefault("compile_seconds", time.perf_counter() - begin)
            result[f"fuser_ms_{tokens}"] = interleaved({"fuser": work}, 3 if day.is_tiny else 15)["fuser"].seconds * 1e3
    return result


def _training(day: Day) -> Result:
    model = trained(day)
    compile_fuser(model.fuser, _backend(day))
    batches = recipe_batches(day, model)
    with float32_products("tf32"):
        steps, begin = Steps(model), time.perf_counter()
        steps.step(batches)
        first = time.perf_counter() - begin
        seconds = _seconds(day, lambda: steps.step(batches), 1 if day.is_tiny else 3)
    rows = sum(map(len, batches))
    return {"first_step_seconds": first, "step_ms": seconds * 1e3, "samples_per_second": rows / seconds}
