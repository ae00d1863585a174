"""`lightning bench`: timings and memory, as JSON on standard output."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from c2c_lightning.commands.parsing import CommandParser, HelpFormatter
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.profiling.benchmark import BenchContext, Benchmark
from c2c_lightning.profiling.model_pair import Pair
from c2c_lightning.profiling.results import environment, to_table

logger = logging.getLogger(__name__)

ABOUT = """\
Time parts of C2C on a pair of models. Results are JSON on standard output; a table and the progress go to standard
error, pictures into `output_dir`.

Examples:
  lightning bench --config configs/bench/step.yaml              the training step in each fusion mode
  lightning bench --config configs/bench/inference.yaml         prefill, fusion, decode; text-to-text against C2C
  lightning bench --config configs/bench/sweep.yaml             how cost grows with batch and length, with a picture
  lightning bench --config configs/bench/loading.yaml           data loading alone"""


def run_bench(args: Sequence[str]) -> None:
    """Run the benchmarks of a configuration."""
    parser = CommandParser(prog="lightning bench", description=ABOUT, formatter_class=HelpFormatter)
    parser.add_argument("--config", action="config", help="YAML file with the options below; later ones win")
    parser.add_argument("--pair", type=Pair, required=True, help="the models", sub_configs=True)
    parser.add_argument("--benchmarks", type=list[Benchmark], required=True, help="what to measure", sub_configs=True)
    parser.add_argument("--device", help="where to run; default cuda if there is one")
    parser.add_argument("--num_threads", type=int, default=1, help="CPU threads; 0 for all")
    parser.add_argument("--seed", type=int, default=42, help="of everything random")
    parser.add_argument("--output_dir", type=str, default="runs/bench", help="pictures and results.json")
    options = parser.options(args[1:])
    if not options.benchmarks:
        raise ConfigurationError("`benchmarks` is empty: name at least one, see `configs/bench`.")
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    torch.manual_seed(options.seed)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    results = {"environment": environment(device)}
    for benchmark in options.benchmarks:
        with _progress(console, benchmark.name) as progress:
            results[benchmark.name] = benchmark.run(BenchContext(options.pair, device, folder, progress))
        console.print(to_table(benchmark.name, results[benchmark.name]))
    text = json.dumps(results, indent=2)
    (folder / "results.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


@contextmanager
def _progress(console: Console, name: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar, which a benchmark tells its number of rounds and then each round."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def begin(total: int) -> Callable[[], None]:
            bar.reset(task, total=total)
            return lambda: bar.advance(task)

        yield begin
