"""Throughput of `lightning serve`: requests in batches against the same requests one by one.

    python -m benchmarks.serving_throughput --fuser runs/quickstart/fuser

Questions of the embedded world by HTTP over the loopback: from one client that waits for each answer, and from many at
once, to a server whose batches hold one answer and to one whose batches hold many. Prints JSON.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from c2c_lightning import embedded


@dataclass(frozen=True)
class Throughput:
    """One run.

    Attributes:
        clients: requests that are sent at once.
        max_batch: answers in one batch of the server.
        requests_per_second: finished answers.
        tokens_per_second: generated tokens.
    """

    clients: int
    max_batch: int
    requests_per_second: float
    tokens_per_second: float


def questions(count: int) -> list[str]:
    """Held-out questions, each once where there are enough."""
    lines = embedded.facts("heldout_chat.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["messages"][0]["content"] for line in lines]
    return [texts[n % len(texts)] for n in range(count)]


@contextmanager
def serving(*args: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Address and process of `lightning serve`."""
    command = [sys.executable, "-m", "c2c_lightning", "serve", "--port", "0", *args]
    # Wide lines: the address must not be wrapped.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    assert process.stderr is not None
    try:
        yield _address(process.stderr), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _address(lines: Any) -> str:
    seen = []
    for line in lines:
        seen.append(line)
        if found := re.search(r"serving on (http://[^ ]+)", line):
            # Somebody has to read, or the server waits once the pipe is full.
            threading.Thread(target=lines.read, daemon=True).start()
            return found[1]
    raise RuntimeError("the server did not start:\n" + "".join(seen))


async def _ask(client: httpx.AsyncClient, model: str, text: str) -> tuple[str, int]:
    messages = [{"role": "user", "content": text}]
    answer = await client.post("/v1/chat/completions", json={"model": model, "messages": messages, "max_tokens": 32})
    body = answer.raise_for_status().json()
    return body["choices"][0]["message"]["content"], body["usage"]["completion_tokens"]


async def _run(url: str, model: str, texts: Sequence[str], clients: int) -> tuple[list[str], int, float]:
    """Texts of the answers, their tokens, seconds."""
    waiting, answers = list(enumerate(texts)), dict[int, tuple[str, int]]()

    async def work(client: httpx.AsyncClient) -> None:
        while waiting:
            number, text = waiting.pop(0)
            answers[number] = await _ask(client, model, text)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        await asyncio.gather(*(_ask(client, model, text) for text in texts[:clients]))  # warm
        start = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(clients)))
        seconds = time.perf_counter() - start
    ordered = [answers[n] for n in range(len(texts))]
    return [text for text, _ in ordered], sum(tokens for _, tokens in ordered), seconds


def measure(fuser: str, model: str, num_requests: int, clients: int) -> dict[str, Any]:
    """All runs, and how much faster batches are; every run gives the same answers."""
    texts, runs, answers = questions(num_requests), list[Throughput](), list[list[str]]()
    for max_batch, counts in ((1, (1, clients)), (clients, (clients,))):
        with serving("--fuser", fuser, "--max_batch", str(max_batch)) as (url, _):
            for count in counts:
                found, tokens, seconds = asyncio.run(_run(url, model, texts, count))
                runs.append(Throughput(count, max_batch, num_requests / seconds, tokens / seconds))
                answers.append(found)
    return {
        "model": model,
        "requests": num_requests,
        "runs": [asdict(run) for run in runs],
        "batched_over_one_by_one": runs[2].requests_per_second / runs[0].requests_per_second,
        "batched_over_unbatched_parallel": runs[2].requests_per_second / runs[1].requests_per_second,
        "same_answers": all(found == answers[0] for found in answers),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuser", default="runs/quickstart/fuser", help="a fuser of the embedded pair")
    parser.add_argument("--model", default="c2c", help="name of the model")
    parser.add_argument("--requests", type=int, default=256, help="requests of each run")
    parser.add_argument("--clients", type=int, default=32, help="requests at once")
    options = parser.parse_args()
    print(json.dumps(measure(options.fuser, options.model, options.requests, options.clients), indent=2))


if __name__ == "__main__":
    main()
