"""The experiment on a tiny model: each answer against a full pass, resumption, choice of layers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.analysis.oracle.enrichment import CLEAN, DELETIONS, prefill_context, prefill_questions, single_layers
from c2c_lightning.errors import BenchmarkError, PromptError
from c2c_lightning.evaluation.oracle import cache_answers
from c2c_lightning.evaluation.oracle.cache_answers import CacheReader, CacheRows
from c2c_lightning.evaluation.oracle.cache_store import QuestionCacheStore
from c2c_lightning.evaluation.oracle.enrichment_report import EnrichmentResults
from c2c_lightning.evaluation.oracle.enrichment_run import FEW_SHOT, KINDS, EnrichmentRun
from c2c_lightning.evaluation.oracle.shot_prompt import TEMPLATES, OptionScoring, PromptEncoder
from c2c_lightning.evaluation.oracle.shot_questions import encode_questions
from c2c_lightning.evaluation.tasks import Question
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

SHOTS = [Question(0, "s", "Is it?", ("yes", "no"), 0), Question(1, "t", "Was it so?", ("no", "yes"), 1)]
QUESTIONS = [
    Question(n, str(n), "Why? " * (1 + n % 3) + str(n), ("the river", "a city", "12"), n % 3, subject=f"s{n % 2}")
    for n in range(9)
]


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    return load_frozen(tiny_pair("qwen3"))


def run_of(
    lm: FrozenLM, questions: Sequence[Question] = QUESTIONS, scoring: OptionScoring = "letter", memory: int = 2**30,
    batch_size: int = 3,
) -> EnrichmentRun:  # fmt: skip
    encoder = PromptEncoder(lm.tokenizer, TEMPLATES[scoring], scoring)
    shots = {question.subject: tuple(SHOTS) for question in questions}
    asked = encode_questions(lm, encoder, questions, shots)
    return EnrichmentRun(CacheReader(lm, scoring), asked, QuestionCacheStore(memory), batch_size, 2, 0)


def finished(run: EnrichmentRun, folder: Path) -> EnrichmentResults:
    single, selected = MeasurementLog(folder / "a.jsonl", {}), MeasurementLog(folder / "b.jsonl", {})
    list(run.answer_single_layers(single))
    list(run.answer_selected_layers(single, selected))
    return EnrichmentResults(run, single, selected)


def assert_equal_reports(found: Any, expected: Any) -> None:
    """Equal, but for the last bits of probabilities: the batches of an interrupted run differ."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if not isinstance(expected, list):
        assert found == pytest.approx(expected, abs=2e-6)
        return
    for one, other in zip(found, expected, strict=True):
        assert_equal_reports(one, other)


@torch.no_grad()
@pytest.mark.parametrize("scoring", ["letter", "choice"])
def test_answers_are_those_of_the_plain_prompts(lm: FrozenLM, scoring: OptionScoring, tmp_path: Path) -> None:
    run = run_of(lm, scoring=scoring)
    log = finished(run, tmp_path).single
    for asked in run.questions:
        p = asked.parts
        for ids, found in (
            ([*p.header, *p.shots, *p.question, *p.cue], log[asked.key]["few_shot"]["probabilities"][0]),
            ([*p.header, *p.question, *p.cue], log[asked.key]["clean"]["probabilities"][0]),
        ):
            sums = []
            for option in p.options:
                logits = lm.model(torch.tensor([[*ids, *option]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
                sums.append(logits.gather(1, torch.tensor(option)[:, None]).sum())
            expected = torch.stack(sums).softmax(0)[asked.question.answer]
            assert found == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("is_branched", [True, False])
@pytest.mark.parametrize("scoring", ["letter", "choice"])
def test_answers_read_together_are_those_read_one_by_one(
    lm: FrozenLM, scoring: OptionScoring, is_branched: bool
) -> None:
    run = run_of(lm, scoring=scoring)
    subsets = single_layers(lm.geometry.num_layers)[[1, 0, 2, 2, 3]]
    contexts = {
        asked.parts.shots: prefill_context(lm, asked.parts.header, asked.parts.shots) for asked in run.questions
    }
    asked = [
        CacheRows(one, cache, kind, subsets[:1] if kind is FEW_SHOT else subsets)
        for one in run.questions
        for cache in prefill_questions(lm, contexts[one.parts.shots], [one.parts.question], one.parts.cue)
        for kind in KINDS.values()
    ]
    assert len({rows.num_tokens for rows in asked}) > 3
    with mock.patch.object(FrozenLM, "supports_ragged", is_branched):
        together = run.reader.answers(asked)
    for rows, found in zip(asked, together, strict=True):
        for n, answer in enumerate(found):
            with mock.patch.object(FrozenLM, "supports_ragged", False):
                [[alone]] = run.reader.answers([replace(rows, enriched=rows.enriched[n : n + 1])])
            assert answer.choice == alone.choice
            assert answer.probability == pytest.approx(alone.probability, abs=2e-6)
    oracle = [found[0].probability for rows, found in zip(asked, together, strict=True) if rows.kind is CLEAN]
    direct = [found[1].probability for rows, found in zip(asked, together, strict=True) if rows.kind is CLEAN]
    assert max(abs(a - b) for a, b in zip(oracle, direct, strict=True)) > 1e-3


def test_the_caches_of_a_batch_share_their_passes(lm: FrozenLM, tmp_path: Path) -> None:
    run = run_of(lm, batch_size=9)
    with mock.patch.object(cache_answers, "score_branches", side_effect=cache_answers.score_branches) as passes:
        list(run.answer_single_layers(MeasurementLog(tmp_path / "a.jsonl", {})))
    caches = [sum(len(prompt.chosen) for prompt in call.args[1]) for call in passes.call_args_list]
    # Two subjects; each question has one few-shot cache, and none, all and single layers of two oracles.
    assert sum(caches) == len(QUESTIONS) * (1 + 2 * (2 + lm.geometry.num_layers))
    assert len(caches) == 2


def test_an_interrupted_run_gives_the_same_answers(lm: FrozenLM, tmp_path: Path) -> None:
    whole = finished(run_of(lm), tmp_path / "whole").to_json()
    interrupted = MeasurementLog(tmp_path / "cut" / "a.jsonl", {})
    list(islice(run_of(lm).answer_single_layers(interrupted), 4))
    with (tmp_path / "cut" / "a.jsonl").open("a") as file:
        file.write('{"key": "8", "res')
    calls = 0
    again = MeasurementLog(tmp_path / "cut" / "a.jsonl", {})
    for _ in run_of(lm).answer_single_layers(again):
        calls += 1
    assert calls == len(QUESTIONS) - 4
    assert_equal_reports(finished(run_of(lm), tmp_path / "cut").to_json(), whole)


def test_caches_that_are_not_kept_are_computed_again(lm: FrozenLM, tmp_path: Path) -> None:
    kept, not_kept = run_of(lm), run_of(lm, memory=0)
    assert_equal_reports(finished(kept, tmp_path / "a").to_json(), finished(not_kept, tmp_path / "b").to_json())
    assert (len(kept.store), len(not_kept.store)) == (len(QUESTIONS), 0)


def test_layers_of_a_question_are_chosen_on_the_other_half(lm: FrozenLM, tmp_path: Path) -> None:
    results = finished(run_of(lm), tmp_path)
    run, second = results.run, results.run.is_second_half
    assert second.sum() in (4, 5)
    for deletion in DELETIONS:
        rankings, by_subset = run.rankings(results.single)[deletion.name], run.right(results.single, deletion.name)
        best = run.right(results.selected, deletion.name)
        for n in range(len(QUESTIONS)):
            other = rankings["first_half" if second[n] else "second_half"]
            # The best layer alone, chosen on the other half, then on the same questions; the worst ones after two each.
            assert best[n, 0] == by_subset[n, 2 + other[0]]
            assert best[n, 2] == by_subset[n, 2 + other[-1]]
            assert best[n, 4] == by_subset[n, 2 + rankings["same_questions"][0]]
        halves = [by_subset[~second, 2:].mean(0), by_subset[second, 2:].mean(0)]
        assert halves[0][rankings["first_half"][0]] == halves[0].max()
        assert halves[1][rankings["second_half"][-1]] == halves[1].min()


def test_the_report_has_every_group(lm: FrozenLM, tmp_path: Path) -> None:
    report = finished(run_of(lm), tmp_path).to_json()
    assert set(report["variants"]) == {"clean", "as_released"}
    clean, released = report["variants"]["clean"], report["variants"]["as_released"]
    assert len(clean["layers"]) == lm.geometry.num_layers
    assert clean["no_layer"]["accuracy"] == report["direct"]["accuracy"]
    assert set(clean["oracle"]) >= {"against_direct", "against_few_shot", "ci95", "n"}
    assert len(released["selected"]["other_half"]["best"]) == len(released["selected"]["same_questions"]["worst"]) == 2
    # The clean cache is as long as the direct one; the released one has its sinks and the cue twice.
    assert clean["oracle"]["cache_tokens"] == report["direct"]["cache_tokens"] < report["few_shot"]["cache_tokens"]
    parts = results_parts(lm)
    lengths = [15 + len(p.question) + 2 * len(p.cue) for p in parts]
    assert released["oracle"]["cache_tokens"] == pytest.approx(np.mean(lengths))


def results_parts(lm: FrozenLM) -> list:  # type: ignore[type-arg]
    return [asked.parts for asked in run_of(lm).questions]


def test_a_question_too_long_for_the_context_is_named(lm: FrozenLM) -> None:
    long = Question(3, "the-long-one", "river " * 600, ("a", "b"), 0)
    with pytest.raises(PromptError, match=r"the-long-one .* context of .* 512"):
        run_of(lm, [QUESTIONS[0], long])


def test_one_question_has_no_halves(lm: FrozenLM) -> None:
    with pytest.raises(BenchmarkError, match="1 questions cannot be split"):
        run_of(lm, QUESTIONS[:1])
