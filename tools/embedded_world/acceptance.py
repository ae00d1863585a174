"""Evaluation of receiver, sharers and peers, and the bounds on their metrics."""

import random
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.embedded_world.metrics import exact_replies, probe_accuracy, value_probabilities
from tools.embedded_world.training import AcceptanceBounds, Report
from tools.embedded_world.training_examples import (
    Example,
    FreshFacts,
    ask,
    ask_after_note,
    ask_after_sentence,
    ask_for_sentence,
)
from tools.embedded_world.world import VALUES, Fact, World

RECEIVER_BOUNDS = AcceptanceBounds(
    at_least={"t2t": 0.98, "note": 0.98, "t2t_distracted": 0.9, "guess_in_vocabulary": 0.98},
    at_most={"facts": 0.15, "guess_max": 0.25},
)
"""Copies an answer from an earlier turn or a note; spreads its probability over all eight values without context."""

_KNOWLEDGE = {"facts": 0.99, "sentences": 0.99, "note": 0.98, "note_distracted": 0.9}
SHARER_BOUNDS = AcceptanceBounds(at_least=_KNOWLEDGE | {"probe": 0.95}, at_most={})
"""Knows its facts, encodes them in its cache by the end of the question, and copies an answer from a note."""
QUARTERS_BOUNDS = AcceptanceBounds(
    at_least=SHARER_BOUNDS.at_least | {"sentences": 0.98}, at_most={"unknown_facts": 0.2}
)
"""Knows its own facts nearly as `SHARER_BOUNDS` says, and guesses the others."""
NAIVE_SHARER_BOUNDS = AcceptanceBounds(at_least=_KNOWLEDGE, at_most={})
"""Knows its facts, with no bound on where in the prompt it encodes them."""

PEER_BOUNDS = AcceptanceBounds(
    at_least={"facts": 0.98, "sentences": 0.8, "probe": 0.95, "t2t": 0.95}, at_most={"unknown_facts": 0.17}
)
"""Knows its facts and no others, encodes them early, and copies an answer from an earlier turn; fewer as sentences."""


class ReceiverEvaluation:
    """Metrics of the receiver: questions about new names, with and without the answer in the context, and all facts.

    Args:
        world: the facts that the receiver must not know.
        num_questions: number of questions of each kind with context.
    """

    def __init__(self, world: World, num_questions: int = 500) -> None:
        rng = random.Random("receiver exam")
        fresh = FreshFacts(world.entities)
        count = range(num_questions)
        self.sentences = [ask_after_sentence(fresh.draw_some(rng, distracted=0.0)) for _ in count]
        self.distracted = [ask_after_sentence(fresh.draw_some(rng)) for _ in count]
        self.notes = [ask_after_note(fresh.draw_some(rng, distracted=0.0)) for _ in count]
        self.guesses = {relation: _questions_about(relation, fresh, rng) for relation in VALUES}
        self.facts = [ask(fact) for fact in world.facts]

    def __call__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Report:
        """Compute the metrics."""
        guesses = [value_probabilities(model, tokenizer, self.guesses[relation], relation) for relation in VALUES]
        return {
            "t2t": exact_replies(model, tokenizer, self.sentences),
            "t2t_distracted": exact_replies(model, tokenizer, self.distracted),
            "note": exact_replies(model, tokenizer, self.notes),
            "facts": exact_replies(model, tokenizer, self.facts),
            "guess_in_vocabulary": min(rows.sum(-1).mean().item() for rows in guesses),
            "guess_max": max(rows.mean(0).max().item() for rows in guesses),
        }


class SharerEvaluation:
    """Metrics of a sharer: facts that it knows, facts that it does not, and notes about new names.

    Args:
        world: the notes avoid its names.
        known: facts that it was trained on.
        unknown: facts that it must answer at random.
        num_notes: number of questions after a note, of each kind.
    """

    def __init__(self, world: World, known: Sequence[Fact], unknown: Sequence[Fact], num_notes: int = 400) -> None:
        rng = random.Random("sharer exam")
        fresh = FreshFacts(world.entities)
        self.known = [(fact, ask(fact)) for fact in known]
        self.sentences = [ask_for_sentence(fact) for fact in known]
        self.unknown = [ask(fact) for fact in unknown]
        self.notes = [ask_after_note(fresh.draw_some(rng, distracted=0.0)) for _ in range(num_notes)]
        self.distracted = [ask_after_note(fresh.draw_some(rng)) for _ in range(num_notes)]

    def __call__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Report:
        """Compute the metrics."""
        train, heldout = ([pair for pair in self.known if pair[0].split == split] for split in ("train", "heldout"))
        report = {
            "facts": exact_replies(model, tokenizer, [example for _, example in self.known]),
            "sentences": exact_replies(model, tokenizer, self.sentences),
            "probe": probe_accuracy(model, tokenizer, train, heldout),
            "note": exact_replies(model, tokenizer, self.notes),
            "note_distracted": exact_replies(model, tokenizer, self.distracted),
        }
        if self.unknown:
            report["unknown_facts"] = exact_replies(model, tokenizer, self.unknown)
        return report


class PeerEvaluation:
    """Metrics of a peer: known facts, unknown facts, and questions about new names after a turn with the answer.

    Args:
        world: the earlier turns avoid its names.
        known: facts that it was trained on.
        unknown: facts that it must answer at random.
        num_questions: number of questions after an earlier turn.
    """

    def __init__(self, world: World, known: Sequence[Fact], unknown: Sequence[Fact], num_questions: int = 400) -> None:
        rng, fresh = random.Random("peer exam"), FreshFacts(world.entities)
        self.as_sharer = SharerEvaluation(world, known, unknown, num_notes=1)
        self.turns = [ask_after_sentence(fresh.draw_some(rng, distracted=0.0)) for _ in range(num_questions)]

    def __call__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Report:
        """Compute the metrics."""
        report = self.as_sharer(model, tokenizer)
        names = ("facts", "sentences", "probe", "unknown_facts")
        return {name: report[name] for name in names} | {"t2t": exact_replies(model, tokenizer, self.turns)}


def _questions_about(relation: str, fresh: FreshFacts, rng: random.Random, count: int = 100) -> list[Example]:
    any_value = VALUES[relation][0]
    return [ask(Fact(fresh.draw(rng).entity, relation, any_value, "train", "first")) for _ in range(count)]
