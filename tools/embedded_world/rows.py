"""Rows of facts for training and evaluation, as JSON lines."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tools.embedded_world.training_examples import FreshFacts, ask_after_note
from tools.embedded_world.world import SPLIT_SHARES, THIRDS, VALUES, Fact, World

Row = dict[str, Any]

PRIVATE_ROWS = {"train": 1200, "validation": 160, "heldout": 480}


def write_rows(world: World, directory: Path, seed: int = 0) -> None:
    """Write all files of rows.

    `SPLIT.jsonl` are multiple-choice rows of the world's facts and `SPLIT_chat.jsonl` the same as conversations;
    `private_context_SPLIT.jsonl` are facts outside all training data, in the sharer's messages only;
    `THIRD_third_SPLIT_chat.jsonl` and `THIRD_third_heldout.jsonl` are the facts that one peer knows.

    Args:
        world: the facts.
        directory: output directory.
        seed: seed of the private facts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"private context {seed}")
    for split in SPLIT_SHARES:
        facts = world.split(split)
        _write(directory / f"{split}.jsonl", (_choice_row(fact) for fact in facts))
        _write(directory / f"{split}_chat.jsonl", (_chat_row(fact) for fact in facts))
        private = _private_rows(FreshFacts(world.entities), rng, PRIVATE_ROWS[split])
        _write(directory / f"private_context_{split}.jsonl", private)
        for third in THIRDS:
            known = [fact for fact in world.third(third) if fact.split == split]
            suffix, row = ("", _choice_row) if split == "heldout" else ("_chat", _chat_row)
            _write(directory / f"{third}_third_{split}{suffix}.jsonl", (row(fact) for fact in known))


def _choice_row(fact: Fact) -> Row:
    choices = list(VALUES[fact.relation])
    return {
        "id": _fact_id(fact),
        "question": fact.question,
        "choices": choices,
        "answer": choices.index(fact.value),
        "subject": fact.relation,
        "entity": fact.entity,
        "half": fact.half,
    }


def _chat_row(fact: Fact) -> Row:
    messages = [{"role": "user", "content": fact.question}, {"role": "assistant", "content": fact.answer}]
    return {"id": _fact_id(fact), "messages": messages, "entity": fact.entity, "half": fact.half}


def _private_rows(fresh: FreshFacts, rng: random.Random, count: int) -> Iterator[Row]:
    for _ in range(count):
        fact = fresh.draw(rng)
        example = ask_after_note([fact])
        yield {
            "id": _fact_id(fact),
            "messages": example.messages[1:],
            "sharer_messages": example.messages[:-1],
            "subject": fact.relation,
            "choices": list(VALUES[fact.relation]),
            "answer": VALUES[fact.relation].index(fact.value),
        }


def _fact_id(fact: Fact) -> str:
    return f"{fact.relation}-{fact.entity.lower()}"


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
