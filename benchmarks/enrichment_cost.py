"""Cost of the enrichment oracle, in units of the prefill of its few-shot prompts one by one.

    python -m benchmarks.enrichment_cost --model DIR --questions mmlu.jsonl --shots mmlu_fewshot.jsonl --limit 500

The units alternate subject by subject, on one thread; a share of the subjects stands for all. Processor time is
measured, which other programs on the machine disturb little.
"""

import time
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch

from c2c_lightning.analysis.oracle.enrichment import prefill_context, prefill_questions, single_layers
from c2c_lightning.evaluation.oracle.cache_answers import CacheReader, CacheRows
from c2c_lightning.evaluation.oracle.enrichment_run import FEW_SHOT, KINDS
from c2c_lightning.evaluation.oracle.shot_prompt import TEXT_4, PromptEncoder, ShotQuestion
from c2c_lightning.evaluation.oracle.shot_questions import encode_questions
from c2c_lightning.evaluation.oracle.shots import choose_shots, without_shots
from c2c_lightning.evaluation.tasks import Task, load_questions
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen

BATCH = 8


def main() -> None:
    """Print both costs in seconds, and their ratios."""
    options = _options()
    torch.set_num_threads(1)
    lm = load_frozen(LMSpec(options.model))
    by_subject = _by_subject(lm, options)
    chosen = list(by_subject.values())[:: options.every]
    prefill_alone(lm, chosen[0][:1])  # the first pass of a process is slower
    ways: dict[str, Callable[[FrozenLM, Sequence[ShotQuestion]], object]] = {
        "few-shot prompts one by one, prefill": prefill_alone,
        "enrichment, all layers": lambda lm, asked: enrich(lm, asked, slice(0, 2)),
        "enrichment, all layers and each single layer": lambda lm, asked: enrich(lm, asked, slice(None)),
    }
    seconds: dict[str, float] = defaultdict(float)
    for asked in chosen:
        for name, way in ways.items():
            begin = time.process_time()
            way(lm, asked)
            seconds[name] += time.process_time() - begin
    count, unit = sum(map(len, chosen)), seconds[next(iter(ways))]
    tokens = [len((*p.header, *p.shots, *p.question, *p.cue)) for asked in chosen for p in (one.parts for one in asked)]
    print(f"{count} questions of {len(chosen)} subjects, few-shot prompts of {sum(tokens) / count:.0f} tokens")
    for name, value in seconds.items():
        print(f"{name}: {value / count:.3f} s a question, {value / unit:.2f} times the prefill")


def prefill_alone(lm: FrozenLM, asked: Iterable[ShotQuestion]) -> None:
    """The few-shot prompts, each in a pass of its own."""
    for one in asked:
        p = one.parts
        ids = torch.tensor([[*p.header, *p.shots, *p.question, *p.cue]])
        lm.prefill(ids, None, torch.arange(ids.shape[1])[None])


def enrich(lm: FrozenLM, asked: Sequence[ShotQuestion], groups: slice) -> None:
    """The answers of one subject: direct, few-shot, and both oracles on some groups of layers."""
    subsets = single_layers(lm.geometry.num_layers)[groups]
    reader, first = CacheReader(lm, "letter"), asked[0].parts
    context = prefill_context(lm, first.header, first.shots)
    for begin in range(0, len(asked), BATCH):
        batch = asked[begin : begin + BATCH]
        caches = prefill_questions(lm, context, [one.parts.question for one in batch], first.cue)
        reader.answers([
            CacheRows(one, cache, kind, subsets[1:2] if kind is FEW_SHOT else subsets)
            for one, cache in zip(batch, caches, strict=True)
            for kind in KINDS.values()
        ])  # fmt: skip


def _by_subject(lm: FrozenLM, options: Namespace) -> dict[str, list[ShotQuestion]]:
    questions = load_questions(Task("mmlu", options.questions, limit=options.limit))
    candidates = load_questions(Task("shots", options.shots))
    shots = choose_shots(candidates, [question.subject for question in questions], 5, 1)
    asked = encode_questions(lm, PromptEncoder(lm.tokenizer, TEXT_4, "letter"), without_shots(questions, shots), shots)
    found: dict[str, list[ShotQuestion]] = defaultdict(list)
    for one in sorted(asked, key=lambda one: len(one.parts.question)):
        found[one.question.subject].append(one)
    return found


def _options() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    for name in ("--model", "--questions", "--shots"):
        parser.add_argument(name, required=True)
    parser.add_argument("--limit", type=int, default=500, help="questions")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th subject only")
    return parser.parse_args()


if __name__ == "__main__":
    with torch.no_grad():
        main()
