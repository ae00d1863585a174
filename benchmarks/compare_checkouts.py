"""Two checkouts of this repository, timed alternately in one run.

    python -m benchmarks.compare_checkouts --other ../older_checkout

Measured: the training step in each fusion mode, on the small pair of `configs/bench` and on 30 thin layers, with its
peak memory; prefill with fusion over the models' own prefills; decoding on the fused cache over the receiver's own.
Ratios are this checkout over the other (below 1: this one is faster). The checkouts take turns, and the fastest round
of each measurement counts, since other programs only ever add to it. On a CPU, times are CPU times of one thread.

The step's share of the machine's matrix-product rate changes as the inverse of its time.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from c2c_lightning.profiling.workload import Workload

HERE = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("checkout_worker.py")
SIDES = ("this", "other")
MODES = ("prefill", "prompt", "decode")

Seconds = dict[str, float]


class Worker:
    """A process that measures one checkout; see `checkout_worker`."""

    def __init__(self, checkout: Path, **variables: str) -> None:
        """Start it, with more environment variables."""
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore", **variables}
        command = [sys.executable, str(WORKER)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, cwd=checkout, env=environment, **pipes)

    def measure(self, request: dict[str, Any]) -> Seconds:
        """The answer to one request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended with exit code {self._process.wait()}; its error is above.")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(frozen=True)
class Comparison:
    """Two checkouts.

    Attributes:
        this: folder of one checkout.
        other: folder of the other.
        rounds: how often each measurement is made.
        device: where to compute.
    """

    this: Path
    other: Path
    rounds: int = 5
    device: str = "cpu"

    def times(self, requests: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[Seconds]]]:
        """Seconds by request, checkout and round."""
        found: dict[str, dict[str, list[Seconds]]] = {name: {side: [] for side in SIDES} for name in requests}
        with ExitStack() as stack:
            workers = {side: stack.enter_context(closing(Worker(getattr(self, side)))) for side in SIDES}
            for number in track(range(self.rounds), "Rounds", console=Console(stderr=True)):
                order = SIDES if number % 2 == 0 else SIDES[::-1]
                for name, request in requests.items():
                    for side in order:
                        found[name][side].append(workers[side].measure({**request, "device": self.device}))
        return found

    def peaks(self, requests: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
        """MiB by request and checkout, each in a process of its own."""
        return {name: {side: self._peak(side, request) for side in SIDES} for name, request in requests.items()}

    def _peak(self, side: str, request: dict[str, Any]) -> float:
        # Every large block is mapped alone, so that freed memory is not counted because the allocator keeps it.
        with closing(Worker(getattr(self, side), MALLOC_MMAP_THRESHOLD_="65536")) as worker:
            return worker.measure({**request, "work": "peak", "device": self.device})["peak_mib"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--this", type=Path, default=HERE, help="folder of this checkout")
    parser.add_argument("--rounds", type=int, default=5, help="how often each measurement is made")
    parser.add_argument("--device", default="cpu", help="where to compute")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of the measurements to make")
    parser.add_argument("--small_pair", type=Path, default=HERE / "configs/bench/pair/small.yaml", help="for all")
    parser.add_argument("--deep_pair", type=Path, default=HERE / "configs/bench/pair/deep.yaml", help="for training")
    parser.add_argument("--max_tokens", type=int, default=512, help="longest prompt")
    parser.add_argument("--no_memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(args)
    comparison = Comparison(options.this.resolve(), options.other.resolve(), options.rounds, options.device)
    requests = {
        name: request
        for name, request in requests_of(options.small_pair, options.deep_pair, options.max_tokens).items()
        if not options.only or any(part in name for part in options.only)
    }
    times = comparison.times(requests)
    trained = {} if options.no_memory else {n: r for n, r in requests.items() if r["work"] == "train"}
    results = {"times": times, "summary": summary(times), "peak_mib": comparison.peaks(trained)}
    show(results)
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def requests_of(small: Path, deep: Path, max_tokens: int) -> dict[str, dict[str, Any]]:
    """All measurements by name, see `checkout_worker.Request`."""
    wide, thin = _sizes(small), _sizes(deep)
    longest = min(256, max_tokens)
    requests: dict[str, dict[str, Any]] = {"matrix product": {"work": "product", "pair": "", "lengths": []}}
    for mode in MODES:
        requests[f"training step, {mode}"] = {"work": "train", "mode": mode, **wide, **_lengths(8, max_tokens)}
        requests[f"training step, {mode}, 30 layers"] = {
            "work": "train", "mode": mode, **thin, **_lengths(4, max_tokens),
        }  # fmt: skip
    requests["prefill"] = {"work": "prefill", **wide, "lengths": [(longest, 1)], "repeats": 5}
    requests["decode"] = {"work": "decode", **wide, "lengths": [(longest, 48)], "repeats": 1}
    return requests


def _sizes(path: Path) -> dict[str, str]:
    sizes = yaml.safe_load(path.read_text(encoding="utf-8"))["init_args"]
    return {"pair": json.dumps({name: sizes[name] for name in ("receiver", "sharers", "fuser")})}


def _lengths(samples: int, max_tokens: int) -> dict[str, list[tuple[int, int]]]:
    lengths = Workload(num_samples=samples, prompt_range=(16, max_tokens)).lengths()
    return {"lengths": list(zip(lengths.prompts[:, 0].tolist(), lengths.responses.tolist(), strict=True))}


def summary(times: dict[str, dict[str, list[Seconds]]]) -> dict[str, Seconds]:
    """For each measurement: the cost of `this` and `other`, and `ratio`, this over other.

    The cost is the time in seconds, relative to the models' own for prefill and decode.
    """
    found = {}
    for name, sides in times.items():
        costs = {side: _cost(rounds) for side, rounds in sides.items()}
        found[name] = {**costs, "ratio": costs["this"] / costs["other"]}
    return found


def _cost(rounds: list[Seconds]) -> float:
    fastest = {name: min(seconds[name] for seconds in rounds) for name in rounds[0]}
    return fastest["fused"] / fastest["alone"] if "fused" in fastest else sum(fastest.values())


def show(results: dict[str, Any]) -> None:
    """The results as a table."""
    table = Table("", *SIDES, "this : other", title="seconds, or times the models' own; peak memory in MiB")
    for name, row in results["summary"].items():
        table.add_row(name, *(f"{row[side]:.3f}" for side in SIDES), f"{row['ratio']:.3f}")
    for name, row in results["peak_mib"].items():
        ratio = row["this"] / row["other"]
        table.add_row(f"peak memory, {name}", *(f"{row[side]:.0f}" for side in SIDES), f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
