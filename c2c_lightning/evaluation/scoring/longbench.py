"""Metrics of LongBench-E (arXiv 2308.14508, section 3.2), reimplemented.

Rouge-L is the plain F-measure over words; the official one comes from a package that splits sentences first.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

_FIRST_LINE_ONLY = ("trec", "triviaqa", "samsum")


def word_f1(reply: str, reference: str) -> float:
    """F-measure of the words, without articles and punctuation."""
    given, gold = _plain_words(reply), _plain_words(reference)
    common = sum((Counter(given) & Counter(gold)).values())
    return _f_measure(common, len(given), len(gold))


def _plain_words(text: str) -> list[str]:
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _f_measure(common: int, given: int, gold: int) -> float:
    return 2 * common / (given + gold) if common else 0.0


def rouge_l(reply: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words."""
    given, gold = reply.split(), reference.split()
    # One row of the table of prefix lengths at a time.
    best = [0] * (len(gold) + 1)
    for word in given:
        diagonal = 0
        for n, other in enumerate(gold, start=1):
            diagonal, best[n] = best[n], diagonal + 1 if word == other else max(best[n], best[n - 1])
    return _f_measure(best[-1], len(given), len(gold))


def class_match(reply: str, reference: str, classes: Sequence[str]) -> float:
    """1 / number of labels in the reply if the right one is among them; labels within the right one are ignored."""
    named = [label for label in classes if label in reply and not (label in reference and label != reference)]
    return 1 / len(named) if reference in named else 0.0


def number_match(reply: str, reference: str) -> float:
    """Proportion of the numbers in a reply that are the right one."""
    right, numbers = re.findall(r"\d+", reference)[0], re.findall(r"\d+", reply)
    return numbers.count(right) / len(numbers) if numbers else 0.0


def code_similarity(reply: str, reference: str) -> float:
    """Edit similarity of the first line of code and the reference."""
    lines = (line for line in reply.lstrip("\n").split("\n") if not any(mark in line for mark in ("`", "#", "//")))
    return SequenceMatcher(None, next(lines, ""), reference).ratio()


_SCORES: dict[str, Callable[[str, str], float]] = {
    **dict.fromkeys(("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "triviaqa"), word_f1),
    **dict.fromkeys(("gov_report", "multi_news", "samsum"), rouge_l),
    **dict.fromkeys(("passage_count", "passage_retrieval_en"), number_match),
    **dict.fromkeys(("lcc", "repobench-p"), code_similarity),
}


def longbench_score(reply: str, task: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The best score over all right answers, 0 to 1; `classes` are all labels of a classification."""
    # As in the official evaluation: these tasks are few-shot, so models continue with another example.
    if task in _FIRST_LINE_ONLY:
        reply = reply.lstrip("\n").split("\n")[0]
    if task == "trec":
        return max(class_match(reply, reference, classes) for reference in references)
    return max(_SCORES[task](reply, reference) for reference in references)
