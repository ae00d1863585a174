"""Kept, gained and recovery against hand computation."""

from dataclasses import replace

import pytest

from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.communication import communication
from c2c_lightning.evaluation.report.render import markdown
from tests.evaluation.report.test_report import KNOWN, answers

RECEIVER, SHARER = answers("receiver", "11110000"), answers("sharer", "11001110")


def lines_of(**by_responder: str) -> dict[str, dict[str, float]]:
    groups = {"receiver": RECEIVER, "sharer": SHARER}
    return communication(groups | {name: answers(name, right) for name, right in by_responder.items()})


def test_kept_and_gained_count_the_questions_of_the_single_models() -> None:
    line = lines_of(c2c="11101001")["c2c"]
    # The receiver has four right, three of them still are; only the sharer has three, one of them arrived.
    assert line == {"kept": 0.75, "kept_of": 4, "gained": pytest.approx(1 / 3), "gained_of": 3}


def test_single_models_have_neither() -> None:
    assert set(lines_of(c2c="11111111", t2t="00000000")) == {"c2c", "t2t"}


def test_any_sharer_counts_as_one_that_knows() -> None:
    more = {"sharer:1": answers("sharer:1", "00000001"), "c2c": answers("c2c", "00000001")}
    line = communication({"receiver": RECEIVER, "sharer": SHARER, **more})["c2c"]
    assert (line["gained"], line["gained_of"]) == (0.25, 4)


def test_several_fusers_count_by_their_mean() -> None:
    c2c = [*answers("c2c", "11110000"), *answers("c2c", "11000000", fuser=1)]
    assert communication({"receiver": RECEIVER, "c2c": c2c})["c2c"] == {"kept": 0.75, "kept_of": 4}


def test_without_a_right_answer_there_is_nothing_to_keep() -> None:
    assert communication({"receiver": answers("receiver", "00"), "c2c": answers("c2c", "11")})["c2c"] == {}


@pytest.mark.parametrize(
    ("c2c", "recovery"), [("11110000", 0.0), ("11111110", 1.0), ("11111000", 1 / 3), ("11100000", -1 / 3)]
)
def test_recovery_is_the_part_of_the_way_from_receiver_to_ceiling(c2c: str, recovery: float) -> None:
    groups = {"receiver": RECEIVER, "receiver:document": answers("receiver:document", "11111110")}
    assert communication({**groups, "c2c": answers("c2c", c2c)})["c2c"]["recovery"] == pytest.approx(recovery)


def test_a_ceiling_that_is_not_above_the_receiver_gives_no_recovery() -> None:
    groups = {"receiver": RECEIVER, "receiver:document": answers("receiver:document", "11110000")}
    assert "recovery" not in communication({**groups, "c2c": answers("c2c", "11111111")})["c2c"]


def test_they_are_fields_of_the_report() -> None:
    section = build_report([*RECEIVER, *SHARER, *answers("c2c", "11101001")], KNOWN, {})["benchmarks"]["bench"]
    assert section["responders"]["c2c"]["kept"] == 0.75
    assert "kept" not in section["responders"]["receiver"]
    assert section["oracle"]["accuracy"] == 7 / 8


def test_the_sharer_without_the_document_is_no_sharer_that_knows() -> None:
    groups = {"receiver": answers("receiver", "00"), "sharer:no_document": answers("sharer:no_document", "11")}
    assert "gained" not in communication({**groups, "c2c": answers("c2c", "11")})["c2c"]
    predictions = [answer for group in groups.values() for answer in group]
    assert build_report(predictions, KNOWN, {})["benchmarks"]["bench"]["oracle"] == {}


def test_recovery_of_f1() -> None:
    scores = {"receiver": 0.2, "receiver:document": 0.6, "c2c": 0.5}
    groups = {name: answers(name, "10", f1=score) for name, score in scores.items()}
    assert communication(groups)["c2c"]["f1_recovery"] == pytest.approx(0.75)


def test_f1_and_sizes_are_in_the_tables_and_notes() -> None:
    predictions = [
        *answers("receiver", "01", f1=0.25, subject="squad"),
        *answers("c2c", "11", f1=0.75, subject="squad", bytes_sent=3000),
    ]
    other = answers("c2c", "10", f1=0.5, bytes_sent=3000, subject="nq")
    predictions += [replace(answer, index=answer.index + 2) for answer in other]
    report = build_report(predictions, {"bench": {**KNOWN["bench"], "document_bytes": 150.0}}, {})
    text = markdown(report)
    assert "| right % | 95 % | F1 % |" in text
    assert "By subject, % (F1):" in text
    assert "100.0 (75.0)" in text
    assert "C2C sends 3,000 bytes a prompt, 20 times the 150 bytes of the private text." in text
