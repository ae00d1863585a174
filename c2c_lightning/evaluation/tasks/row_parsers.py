"""Parsers of benchmark rows, in the columns of the hub or of local files.

Each parser returns the fields of a `Question`, or, for a row that is excluded on purpose, the reason as text.
"""

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from c2c_lightning.data.messages import sharer_messages_of
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks.corrections import parse_correction
from c2c_lightning.evaluation.tasks.longbench_prompts import length_group, longbench_prompt

Row = Mapping[str, Any]
Fields = dict[str, Any]
RowParser = Callable[[Row], Fields | str]

_QUESTION = ("question", "question_stem", "problem", "input", "Question")
_CHOICES = ("choices", "options")
_ANSWER = ("answer", "answerKey", "answer_index", "label", "Answer")
_SUBJECT = ("subject", "category", "domain", "Subdomain", "dataset", "Subject")


def column(row: Row, names: Sequence[str]) -> Any:
    """The first of some columns that a row has."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    wanted, found = " or ".join(map(repr, names)), ", ".join(map(repr, row))
    raise BenchmarkError(f"there is no column {wanted}; the row has {found}.")


def subject(row: Row) -> str:
    """The field of knowledge, empty where the row has none."""
    return next((str(row[name]) for name in _SUBJECT if row.get(name)), "")


def choice_row(row: Row) -> Fields | str:
    """Multiple choice: choices as texts or `{"text", "label"}`; the answer as a number from 0, a letter or a label.

    Rows with `messages` and `sharer_messages`, or a `sharer_context`, are private context: sharers read their own.
    """
    texts, labels = _choices(column(row, _CHOICES))
    text = _private(row) if "messages" in row else {"text": str(column(row, _QUESTION))}
    return {**text, **_answered(texts, labels, row), "subject": subject(row)}


def _choices(raw: Any) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    if isinstance(raw, Mapping):
        return [str(text) for text in raw["text"]], [str(label) for label in raw["label"]]
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise BenchmarkError(f"the choices must be a list of texts, but are {type(raw).__name__}.")
    if raw and all(isinstance(entry, Mapping) for entry in raw):
        return [str(entry["text"]) for entry in raw], [str(entry["label"]) for entry in raw]
    return [str(text) for text in raw], [chr(ord("A") + n) for n in range(len(raw))]


def _answered(texts: list[str], labels: list[str], row: Row) -> Fields:
    if len(texts) < 2:
        raise BenchmarkError(f"a question needs at least two choices, but this one has {len(texts)}.")
    given = column(row, _ANSWER)
    # Labels first: "1" is the first choice where choices are numbered from 1 (ARC), else an index from 0.
    if isinstance(given, str) and given in labels:
        return {"choices": tuple(texts), "answer": labels.index(given)}
    # `True` would be an index of 1.
    index = int(given) if isinstance(given, int) or (isinstance(given, str) and given.isdecimal()) else None
    if isinstance(given, bool) or index is None or not 0 <= index < len(texts):
        raise BenchmarkError(f"the answer {given!r} is none of the {len(texts)} choices (0 to {len(texts) - 1}).")
    return {"choices": tuple(texts), "answer": index}


def _private(row: Row) -> Fields:
    messages = row["messages"]
    question = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=None)
    if question is None:
        raise BenchmarkError("`messages` holds no message of the user, so there is no question.")
    # Rows of a training file end with the answer, which no model may read.
    sharer = sharer_messages_of(row, messages)
    if sharer and sharer[-1]["role"] == "assistant":
        sharer = sharer[:-1]
    history = tuple(messages[:question])
    return {"text": messages[question]["content"], "history": history, "sharer": tuple(sharer) if sharer else None}


def letter_key_row(row: Row) -> Fields | str:
    """As `choice_row`, but keys other than A to D are excluded, as in the released code (ARC: 1,150 of 1,172)."""
    key = column(row, _ANSWER)
    if isinstance(key, str) and key not in ("A", "B", "C", "D"):
        return "key is not A to D"
    return choice_row(row)


def mmlu_redux_row(row: Row) -> Fields | str:
    """MMLU-Redux 2.0: wrong keys corrected, questions without a right answer excluded, as in the released code.

    Beyond the released code, a correction may name several choices, each of which counts, and a wrong key whose
    correction cannot be parsed excludes the question.
    """
    error = row.get("error_type", "ok")
    if error in ("no_correct_answer", "expert"):
        return f"error_type is {error}"
    if error not in ("wrong_groundtruth", "multiple_correct_answers"):
        return choice_row(row)
    texts, _ = _choices(column(row, _CHOICES))
    right = parse_correction(row.get("correct_answer"), texts)
    if right:
        fields = choice_row({**row, "answer": right[0]})
        return {**fields, "also_right": right[1:]} if isinstance(fields, dict) else fields
    return "the correction of a wrong key cannot be parsed" if error == "wrong_groundtruth" else choice_row(row)


def letter_columns_row(row: Row) -> Fields | str:
    """C-Eval and MMMLU: choices in the columns A to D; questions without an answer (C-Eval, test) are excluded."""
    if "A" not in row:
        return choice_row(row)
    if not any(row.get(name) for name in _ANSWER):
        return "no answer"
    return choice_row({**row, "choices": [row[name] for name in "ABCD"]})


def gpqa_row(row: Row) -> Fields | str:
    """GPQA: one right and three wrong answers, in an order that depends on the question alone.

    Where experts revised a question a second time ("Extra Revised ..."), that version counts, as in the released code.
    """
    if "Correct Answer" not in row:
        return choice_row(row)
    names = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    text, *answers = (str(row.get(f"Extra Revised {name}") or row[name]) for name in names)
    # The hub has the right answer first.
    order = list(range(4))
    random.Random(hashlib.sha256(str(row["Question"]).encode()).digest()).shuffle(order)
    choices = tuple(answers[n].strip() for n in order)
    return {"text": text, "choices": choices, "answer": order.index(0), "subject": subject(row)}


def boolq_row(row: Row) -> Fields | str:
    """BoolQ: a passage and a question to be answered with yes or no."""
    if "passage" not in row:
        return choice_row(row)
    text = f"{row['passage']}\n\nQuestion: {row['question']}?"
    return {"text": text, "choices": ("no", "yes"), "answer": int(str(row["answer"]).lower() in ("true", "yes", "1"))}


def piqa_row(row: Row) -> Fields | str:
    """PIQA: a goal and two ways to reach it."""
    if "goal" not in row:
        return choice_row(row)
    return choice_row({"question": row["goal"], "choices": [row["sol1"], row["sol2"]], "answer": row["label"]})


def winogrande_row(row: Row) -> Fields | str:
    """WinoGrande: a sentence with a blank and two words for it."""
    if "sentence" not in row:
        return choice_row(row)
    text = f"Which choice fits the blank (_) in this sentence?\n{row['sentence']}"
    choices = {"text": [row["option1"], row["option2"]], "label": ["1", "2"]}
    return choice_row({"question": text, "choices": choices, "answer": row["answer"]})


def free_row(row: Row) -> Fields | str:
    """A question with a free answer (GSM8K: the text after `####`)."""
    answer = str(column(row, ("answer", "answers")))
    reference = re.sub(r"^.*####", "", answer, flags=re.DOTALL).strip()
    return {"text": str(column(row, _QUESTION)), "references": (reference,), "subject": subject(row)}


def longbench_row(row: Row) -> Fields | str:
    """LongBench-E: the official prompt, several right answers; the subject is the group of the context's length."""
    task = str(row["dataset"]).removesuffix("_e")
    return {
        "text": longbench_prompt(task, str(row["context"]), str(row["input"])),
        "references": tuple(map(str, row["answers"])),
        "subject": length_group(int(row["length"])),
        "task": task,
        "classes": tuple(map(str, row.get("all_classes") or ())),
    }
