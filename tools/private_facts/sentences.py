"""Rows about real texts: how a sentence of the document goes on."""

import random
import re
from collections.abc import Iterator, Sequence

RELATION = "sentence"
#: Words of a document and of its question's quotation at most, and of an answer.
_DOCUMENT, _QUOTED, _ANSWER = 90, 8, 30
#: Words of the asked sentence: shorter ones are mostly headings and abbreviations.
_FEWEST, _MOST = 6, 60

_BORDER = re.compile(r'(?<=[.!?]) +(?=[A-Z"(])')
_QUESTIONS = (
    "Continue the sentence: {}",
    "How does this sentence go on: {}",
    'What comes after "{}"?',
    'Which words follow "{}"?',
)


def sentence_rows(texts: Sequence[str], generator: random.Random) -> Iterator[dict[str, str]]:
    """Rows with `relation`, `document`, `question` and `answer`, at most one for each text.

    The answer is the rest of the sentence, without its full stop, so that the receiver can know where it ends. Texts
    without a sentence of fitting length are left out.
    """
    for text in texts:
        sentences = _BORDER.split(" ".join(text.split()))
        fitting = [number for number, sentence in enumerate(sentences) if _is_fitting(sentence)]
        if not fitting:
            continue
        row = _row(sentences, generator.choice(fitting), generator)
        if row["answer"]:  # not of an ellipsis
            yield row


def _is_fitting(sentence: str) -> bool:
    return _FEWEST <= len(sentence.split()) <= _MOST and sentence.endswith(".")


def _row(sentences: Sequence[str], asked: int, generator: random.Random) -> dict[str, str]:
    document = _around(sentences, asked, generator)
    words = sentences[asked].split()
    cut = generator.randint(max(3, len(words) - _ANSWER), len(words) - 1)
    question = generator.choice(_QUESTIONS).format(" ".join(words[max(0, cut - _QUOTED) : cut]))
    answer = " ".join(words[cut:]).rstrip(".")
    return {"relation": RELATION, "document": document, "question": question, "answer": answer}


def _around(sentences: Sequence[str], asked: int, generator: random.Random) -> str:
    """The asked sentence with whole sentences before and after it, as many as there is room for."""
    first = last = asked
    while True:
        wider = [(first - 1, last), (first, last + 1)]
        fitting = [
            (begin, end)
            for begin, end in wider
            if begin >= 0 and end < len(sentences) and _num_words(sentences[begin : end + 1]) <= _DOCUMENT
        ]
        if not fitting:
            return " ".join(sentences[first : last + 1])
        first, last = generator.choice(fitting)


def _num_words(sentences: Sequence[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)
