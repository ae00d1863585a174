r"""Fuser kinds side by side on one task: parameters, bytes sent, training time, loss, accuracy, and the control.

    python -m benchmarks.size_table --fit configs/fit/quickstart.yaml --eval configs/eval/quickstart.yaml \
        --kinds c2c low_rank_16 ridge_20_replace --seeds 42 1 2 --out runs/size_table

Each kind is trained by `lightning fit` with the given configurations and the changes of `KINDS` (or of a YAML file in
the place of a name), and evaluated by `lightning test`, once for each seed. A folder OUT/KIND/SEED holds all files of a
run; finished fits and tests are not repeated, so that an interrupted table continues. Results: OUT/size_table.json and
OUT/size_table.md. Bytes are those of one prompt's sharer entries; seconds are of the processor and of the clock, with
the frozen models' caches kept in memory (`cache_frozen`), so that prompts are prefilled once; the loss is that of the
validation rows at the end, in nats per response token.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

BUFFERS = (".temperature", ".sources")
"""Tensors of a fuser file that are no parameters."""


def _rotary_free(mode: str | None = None, **options: Any) -> dict[str, Any]:
    """Changes to a fit configuration: a kind on position-free keys."""
    fuser = {"kind": "rotary_free", "options": options}
    return {"model": {"fuser": fuser if mode is None else {**fuser, "fusion_mode": mode}}}


#: Changes to a fit configuration by the name of a row.
KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "low_rank_16": {
        "model": {
            "fuser": {"kind": "low_rank", "options": {"rank": 16, "num_blocks": 0}, "anneal_steps": 1000},
            "optimizer": {"init_args": {"lr": 0.005}},
        },
        "trainer": {"max_steps": 1000},
    },
    "low_rank_128": {"model": {"fuser": {"kind": "low_rank", "options": {"rank": 128}}}},
    "memory_32": _rotary_free(mode="prefill", kind="memory", width=32),
    "ridge": _rotary_free(kind="ridge"),
    "ridge_replace": _rotary_free(mode="replace", kind="ridge"),
    "ridge_trained": _rotary_free(kind="ridge", num_sources=1, trainable=True),
    "ridge_trained_replace": _rotary_free(mode="replace", kind="ridge", num_sources=1, trainable=True),
    "ridge_20_replace": _rotary_free(mode="replace", kind="ridge", num_sources=1, map_rank=20, trainable=True),
    "ridge_8_replace": {
        "model": {
            **_rotary_free(mode="replace", kind="ridge", num_sources=1, map_rank=8, trainable=True)["model"],
            "optimizer": {"init_args": {"lr": 0.003}},
        },
        "trainer": {"max_steps": 1000},
    },
    "ridge_start_low_rank_16": _rotary_free(kind="ridge_start", num_sources=1, rank=16, num_blocks=0),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; `args` default to those of the process. Returns the exit code."""
    options = _options(args)
    runs = [_run(kind, seed, options) for kind in options.kinds for seed in options.seeds]
    rows = [_row([run for run in runs if run["kind"] == Path(kind).stem]) for kind in options.kinds]
    (options.out / "size_table.json").write_text(json.dumps({"runs": runs, "rows": rows}, indent=2) + "\n", "utf-8")
    table = _table(rows)
    with (options.out / "size_table.md").open("w", encoding="utf-8") as file:
        Console(file=file, width=200).print(table)
    Console().print(table)
    return 0


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, nargs="+", required=True, help="configurations of `lightning fit`")
    parser.add_argument("--eval", type=Path, nargs="+", required=True, help="configurations of `lightning test`")
    parser.add_argument("--kinds", nargs="+", default=["c2c", "low_rank_16"], help=f"{', '.join(KINDS)}, or YAML files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], help="of training")
    parser.add_argument("--benchmark", help="name of the benchmark in the table; default the first one")
    parser.add_argument("--out", type=Path, default=Path("runs/size_table"), help="folder")
    options = parser.parse_args(args)
    for kind in options.kinds:
        if kind not in KINDS and not Path(kind).is_file():
            parser.error(f"{kind!r} is neither a YAML file nor one of {', '.join(KINDS)}")
    for path in (*options.fit, *options.eval):
        if not path.is_file():
            parser.error(f"there is no file {path}")
    return options


def _run(kind: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one kind with one seed, as far as this is not done yet."""
    folder: Path = options.out / Path(kind).stem / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    changes = KINDS[kind] if kind in KINDS else yaml.safe_load(Path(kind).read_text("utf-8"))
    (folder / "kind.yaml").write_text(yaml.safe_dump(changes or {"seed_everything": seed}), "utf-8")
    fit = ["fit", *_configs([*options.fit, folder / "kind.yaml"]), "--seed_everything", str(seed)]
    fit += ["--model.cache_frozen", "memory", "--trainer.default_root_dir", str(folder)]
    times = _once(folder / "fit.json", fit)
    test = ["test", *_configs(options.eval), "--model.fuser", str(folder / "fuser"), "--model.controls=[mismatched]"]
    test += ["--model.responders=[receiver,c2c]", "--model.output_dir", str(folder)]
    _once(folder / "test.json", [*test, "--trainer.default_root_dir", str(folder)])
    record = json.loads((folder / "fuser" / "fuser_config.json").read_text("utf-8"))["training"]["results"]
    benchmarks = json.loads((folder / "report.json").read_text("utf-8"))["benchmarks"]
    shown = options.benchmark or next(iter(benchmarks))
    responders = benchmarks[shown]["responders"]
    return {
        "kind": Path(kind).stem,
        "seed": seed,
        "parameters": _num_parameters(folder / "fuser" / "model.safetensors"),
        "bytes_per_prompt": responders["c2c"]["bytes_per_prompt"],
        **times,
        "loss": record.get("val/loss", math.nan),
        "loss_mismatched": record.get("val/loss_mismatched", math.nan),
        "n": responders["c2c"]["n"],
        "accuracy": {name: responder["accuracy"] for name, responder in responders.items()},
        "all_benchmarks": {
            name: {row: responder["accuracy"] for row, responder in of["responders"].items()}
            for name, of in benchmarks.items()
        },
    }


def _num_parameters(file: Path) -> int:
    """Numbers in a fuser file that are parameters."""
    with safe_open(file, "pt") as weights:
        names = [name for name in weights.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118
        return sum(weights.get_tensor(name).numel() for name in names)


def _configs(paths: Sequence[Path]) -> list[str]:
    return [f"--config={path}" for path in paths]


def _once(done: Path, command: Sequence[str]) -> dict[str, float]:
    """Seconds of a `lightning` command; it runs unless `done` has those of an earlier run."""
    if done.is_file():
        known: dict[str, float] = json.loads(done.read_text("utf-8"))
        return known
    log, begin, before = done.with_suffix(".log"), time.perf_counter(), _processor_seconds()
    Console(stderr=True).print(f"{done.parent}: {command[0]}")
    with log.open("w", encoding="utf-8") as file:
        result = subprocess.run(
            [sys.executable, "-m", "c2c_lightning", *command], stdout=file, stderr=file, check=False
        )
    if result.returncode:
        raise SystemExit(f"`lightning {command[0]}` failed with exit code {result.returncode}; see {log}")
    times = {"cpu_seconds": _processor_seconds() - before, "seconds": time.perf_counter() - begin}
    done.write_text(json.dumps(times) + "\n", "utf-8")
    return times


def _processor_seconds() -> float:
    """Processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of one kind."""
    accuracies = [run["accuracy"]["c2c"] for run in runs]
    return {
        "kind": runs[0]["kind"],
        "parameters": runs[0]["parameters"],
        "bytes_per_prompt": statistics.mean(run["bytes_per_prompt"] for run in runs),
        "cpu_seconds": statistics.mean(run["cpu_seconds"] for run in runs),
        "seconds": statistics.mean(run["seconds"] for run in runs),
        "loss": statistics.mean(run["loss"] for run in runs),
        "loss_mismatched": statistics.mean(run["loss_mismatched"] for run in runs),
        "accuracy": statistics.mean(accuracies),
        "by_seed": accuracies,
        "mismatched": statistics.mean(run["accuracy"]["c2c:mismatched"] for run in runs),
        "receiver": statistics.mean(run["accuracy"]["receiver"] for run in runs),
        "n": runs[0]["n"],
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = ("kind", "parameters", "of the first", "bytes per prompt", "fit, processor s", "fit, s", "loss", "C2C")
    table = Table(*columns, "by seed", "mismatched", "receiver", "questions", box=box.MARKDOWN)
    for row in rows:
        table.add_row(
            f"`{row['kind']}`",
            f"{row['parameters']:,}",
            f"{row['parameters'] / rows[0]['parameters']:.1%}",
            f"{row['bytes_per_prompt']:,.0f}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['seconds']:.0f}",
            f"{row['loss']:.3f}",
            f"{row['accuracy']:.1%}",
            ", ".join(f"{accuracy:.1%}" for accuracy in row["by_seed"]),
            f"{row['mismatched']:.1%}",
            f"{row['receiver']:.1%}",
            str(row["n"]),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
