"""Decoding with rows that leave the batch once they have ended, against decoding all rows to the longest answer.

    python -m benchmarks.ended_rows --fuser runs/private_text/fuser --data data/private_facts

The same fused prompts are answered both ways by turns, in greedy search. Only decoding is timed, in processor seconds,
so that other work on the machine counts little. Exit code 1 if an answer differs: in bfloat16 a batch of another size
may round otherwise.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from c2c_lightning import C2CModel
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.model.ended_rows import generate_rows
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.generation import generate
from c2c_lightning.responders.c2c_responder import C2CResponder

WAYS: dict[str, Callable[..., Any]] = {"all rows": generate, "rows leave": generate_rows}


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    options = _options(args)
    torch.set_num_threads(options.threads)
    model = C2CModel.from_pretrained(options.fuser)
    seconds, different, answers = dict.fromkeys(WAYS, 0.0), 0, 0
    for prompt in _batches(C2CResponder(model), options):
        with torch.no_grad():
            fused = model.prefill(prompt)
            found = {}
            for round_number in range(options.rounds + 1):
                for name, way in WAYS.items():
                    taken, found[name] = _decode(model, fused, way, options.max_new_tokens)
                    seconds[name] += taken if round_number else 0.0  # the first round warms up
        first, second = (_padded(ids, prompt, options.max_new_tokens) for ids in found.values())
        different, answers = different + int((first != second).any(1).sum()), answers + len(prompt)
    ratio = seconds["all rows"] / seconds["rows leave"]
    per_answer = {name: value / options.rounds / answers for name, value in seconds.items()}
    Console().print(
        f"Processor seconds of an answer: {per_answer['all rows']:.4f} with all rows, {per_answer['rows leave']:.4f} "
        f"with rows that leave: {ratio:.2f} times as fast. {different} of {answers} answers differ."
    )
    if options.output is not None:
        numbers = {"seconds": per_answer, "ratio": ratio, "answers": answers, "different": different}
        options.output.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return int(different > 0)


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ended_rows", description=__doc__.splitlines()[0])
    parser.add_argument("--fuser", required=True, help="fuser directory")
    parser.add_argument("--data", type=Path, required=True, help="folder of rows as `tools.private_facts` writes them")
    parser.add_argument("--file", default="heldout_names_values.jsonl", help="file of the rows")
    parser.add_argument("--questions", type=int, default=80, help="how many of its rows")
    parser.add_argument("--shots", type=int, default=6, help="worked examples")
    parser.add_argument("--batch_size", type=int, default=40, help="rows in a batch")
    parser.add_argument("--max_new_tokens", type=int, default=32, help="limit of an answer, in tokens")
    parser.add_argument("--rounds", type=int, default=2, help="how often each way is timed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    return parser.parse_args(args)


def _batches(responder: C2CResponder, options: argparse.Namespace) -> list[PromptBatch]:
    path, examples = str(options.data / options.file), str(options.data / "worked_examples.jsonl")
    task = resolve(
        Task(
            "rows",
            path=path,
            rows="document",
            shots=options.shots,
            examples=examples,
            wording="question",
            mode="generate",
            scoring="squad",
            limit=options.questions,
        )
    )
    conversations = [question.prompt(task.worded()) for question in load_questions(task)]
    size = options.batch_size
    return [responder.encode(conversations[n : n + size]) for n in range(0, len(conversations), size)]


def _decode(model: C2CModel, fused: FusedPrompt, way: Callable[..., Any], limit: int) -> tuple[float, Tensor]:
    cache, begin = model.mode.generation_cache(model, fused), time.process_time()
    ids: Tensor = way(model.receiver, fused.prompt, cache, max_new_tokens=limit, do_sample=False)
    return time.process_time() - begin, ids


def _padded(ids: Tensor, prompt: PromptBatch, limit: int) -> Tensor:
    new = ids[:, prompt.num_receiver_tokens :]
    return torch.nn.functional.pad(new, (0, limit - new.shape[1]))


if __name__ == "__main__":
    raise SystemExit(main())
