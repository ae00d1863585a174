"""Answers with a sharer in another process against a local one and against text-to-text: seconds and bytes.

    python -m benchmarks.remote_sharer --fuser runs/quickstart/fuser

The sharer runs in a process of its own (`lightning sharer`) on the loopback. The same questions of the embedded world
are answered one by one, all ways alternately. Seconds are of the wall clock, medians over the questions, from the
question to the last token. Exit code 1 if an answer with the unchanged cache differs from that with a local sharer.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from c2c_lightning import C2CModel
from c2c_lightning.channel.sharer_client import SharerClient
from c2c_lightning.errors import ChannelError
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.single_model import SingleModel
from c2c_lightning.responders.text_to_text import TextToText

SETTINGS: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
START_SECONDS = 120


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; `args` default to those of the process. Returns the exit code."""
    options = _options(args)
    torch.set_num_threads(1)
    benchmark = resolve(Task("quickstart", limit=options.questions))
    texts = [question.text for question in load_questions(benchmark)]
    with sharer_process("embedded:sharer") as url:
        ways = _ways(options.fuser, url)
        results = _measure(ways, texts)
    table = Table("way", "ms per answer", "relative to local", "bytes per prompt")
    for name, result in results.items():
        relative = result["seconds"] / results["c2c, local"]["seconds"]
        table.add_row(name, f"{1000 * result['seconds']:.1f}", f"{relative:.2f}", f"{result['bytes']:,.0f}")
    Console().print(table)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump({name: {**result, "answers": None} for name, result in results.items()}, file, indent=2)
    return int(results["c2c, local"]["answers"] != results["c2c, 32 bits"]["answers"])


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuser", default="runs/quickstart/fuser", help="fuser directory of the embedded pair")
    parser.add_argument("--questions", type=int, default=64, help="how many questions")
    parser.add_argument("--output", help="file for the results as JSON")
    return parser.parse_args(args)


@contextmanager
def sharer_process(model: str) -> Iterator[str]:
    """The address of a sharer that runs while the context is open."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "c2c_lightning", "sharer", f"--model={model}", f"--port={port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_up(url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            SharerClient(url, attempts=1).info()
            return
        except ChannelError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _ways(fuser: str, url: str) -> dict[str, Any]:
    local = C2CModel.from_pretrained(fuser)
    message = TextToText(SingleModel(local.receiver), SingleModel(local.sharers[0]), "In one sentence: {question}", 32)
    ways: dict[str, Any] = {"text-to-text, local": message, "c2c, local": C2CResponder(local)}
    for bits in (32, 8):
        spec = LMSpec(url=url, bits=bits)  # type: ignore[arg-type]
        ways[f"c2c, {bits} bits"] = C2CResponder(C2CModel.from_pretrained(fuser, receiver=local.receiver, sharers=spec))
    return ways


def _measure(ways: dict[str, Any], texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[Any]] = {name: [] for name in ways}
    for text in texts:
        for name, way in ways.items():
            conversation = [[{"role": "user", "content": text}]]
            answer, spent = _timed(way, conversation)
            seconds[name].append(spent)
            answers[name].append(answer)
    sent = {name: _bytes(name, ways[name], answers[name], texts) for name in ways}
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "bytes": sent[name],
            "answers": [answer.text for answer in answers[name]],
        }
        for name in ways
    }


def _bytes(name: str, way: Any, answers: Sequence[Any], texts: Sequence[str]) -> float:
    """Mean bytes that crossed for one prompt; of a remote sharer the answers of its process, headers apart."""
    client = getattr(getattr(way, "model", None), "sharers", [None])[0]
    client = getattr(client, "client", None)
    if client is None:
        return statistics.mean(answer.bytes_sent for answer in answers)
    sizes: list[int] = []
    prefill = client.prefill

    def counted(request: Any) -> bytes:
        data: bytes = prefill(request)
        sizes.append(len(data))
        return data

    client.prefill = counted
    for text in texts[:8]:
        way.respond([[{"role": "user", "content": text}]], **SETTINGS)
    client.prefill = prefill
    return statistics.mean(sizes)


def _timed(way: Any, conversation: list[Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return way.respond(conversation, **SETTINGS)[0], time.perf_counter() - begin


if __name__ == "__main__":
    raise SystemExit(main())
