"""Sampling and log-probabilities row by row."""

import torch

from c2c_lightning.serving.answer_row import AnswerRow, AnswerSettings
from c2c_lightning.serving.request_control import RequestControl
from c2c_lightning.serving.row_sampling import LogProbRecorder, RowSampling

SCORES = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
IDS = torch.zeros(1, 1, dtype=torch.long)


def row(number: int = 0, **settings: object) -> AnswerRow:
    return AnswerRow(None, AnswerSettings(8, **settings), RequestControl(60.0), number=number)


def draws(sampled: AnswerRow, count: int) -> torch.Tensor:
    sampling = RowSampling([sampled])
    return torch.stack([sampling(IDS, SCORES[None].clone()).argmax(-1)[0] for _ in range(count)])


def test_frequencies_are_those_of_the_softmax_at_the_temperature() -> None:
    for temperature in (0.5, 1.0, 2.0):
        found = draws(row(temperature=temperature, seed=1), 1200).bincount(minlength=5) / 1200
        expected = (SCORES / temperature).softmax(-1)
        # Five standard errors of a proportion.
        assert ((found - expected).abs() < 5 * (expected * (1 - expected) / 1200).sqrt() + 1e-9).all()


def test_top_p_leaves_the_likeliest_tokens() -> None:
    assert set(draws(row(temperature=1.0, top_p=0.8, seed=2), 300).tolist()) == {0, 1}


def test_a_seed_draws_the_same_alone_and_in_any_row_of_a_batch() -> None:
    alone = draws(row(temperature=1.0, seed=5), 20).tolist()
    batch = [row(temperature=0.7), row(temperature=0.0), row(temperature=1.0, seed=5)]
    sampling = RowSampling(batch)
    ids = torch.zeros(3, 1, dtype=torch.long)
    together = [sampling(ids, SCORES.repeat(3, 1)).argmax(-1).tolist() for _ in range(20)]
    assert [chosen[2] for chosen in together] == alone
    assert {chosen[1] for chosen in together} == {0}


def test_answers_of_one_request_and_unseeded_answers_differ() -> None:
    first, second = (draws(row(n, temperature=2.0, seed=5), 30).tolist() for n in range(2))
    assert first != second
    assert draws(row(temperature=2.0), 30).tolist() != draws(row(temperature=2.0), 30).tolist()


def test_log_probabilities_are_those_before_temperature() -> None:
    rows = [row(temperature=2.0, top_logprobs=2), row()]
    recorder = LogProbRecorder(rows)
    assert torch.equal(recorder(IDS, SCORES.repeat(2, 1)), SCORES.repeat(2, 1))
    expected = SCORES.log_softmax(-1)
    found = recorder.of(0, 2)
    assert found.log_probability == float(expected[2])
    assert found.top == ((0, float(expected[0])), (1, float(expected[1])))
    assert recorder.of(1, 2) is None
