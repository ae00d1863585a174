"""LongBench-E: its prompts and its scores (arXiv 2308.14508, section 3.2 and its `metrics.py`, written anew).

Rouge-L is the plain F-measure over words; the official one comes from a package that splits sentences first.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from c2c_lightning.errors import BenchmarkError

_PASSAGES = (
    "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\n"
    "The following are given passages.\n{context}\n\n"
    "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\n"
    "Question: {input}\nAnswer:"
)
_CONCISE = (
    "as concisely as you can, using a single phrase or sentence if possible. If the question cannot be answered based "
    'on the information in the article, write "unanswerable". If the question is a yes/no question, answer "yes", '
    '"no", or "unanswerable". Do not provide any explanation.'
)

#: The official prompt of each task.
PROMPTS = {
    "qasper": (
        f"You are given a scientific article and a question. Answer the question {_CONCISE}\n\nArticle: {{context}}\n\n"
        f" Answer the question based on the above article {_CONCISE}\n\nQuestion: {{input}}\n\nAnswer:"
    ),
    "multifieldqa_en": (
        "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following question based on the "
        "above text, only give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:"
    ),
    "hotpotqa": _PASSAGES,
    "2wikimqa": _PASSAGES,
    "gov_report": (
        "You are given a report by a government agency. Write a one-page summary of the report.\n\nReport:\n{context}"
        "\n\nNow, write a one-page summary of the report.\n\nSummary:"
    ),
    "multi_news": (
        "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n{context}\n\nNow, write "
        "a one-page summary of all the news.\n\nSummary:"
    ),
    "trec": (
        "Please determine the type of the question below. Here are some examples of questions.\n\n{context}\n{input}"
    ),
    "triviaqa": (
        "Answer the question based on the given passage. Only give me the answer and do not output any other words. "
        "The following are some examples.\n\n{context}\n\n{input}"
    ),
    "samsum": (
        "Summarize the dialogue into a few short sentences. The following are some examples.\n\n{context}\n\n{input}"
    ),
    "passage_count": (
        "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please carefully read "
        "these paragraphs and determine how many unique paragraphs there are after removing duplicates. In other "
        "words, how many non-repeating paragraphs are there in total?\n\n{context}\n\nPlease enter the final count of "
        "unique paragraphs after removing duplicates. The output format should only contain the number, such as 1, 2, "
        "3, and so on.\n\nThe final answer is: "
    ),
    "passage_retrieval_en": (
        "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the abstract "
        "is from.\n\n{context}\n\nThe following is an abstract.\n\n{input}\n\nPlease enter the number of the paragraph "
        'that the abstract is from. The answer format must be like "Paragraph 1", "Paragraph 2", etc.\n\n'
        "The answer is: "
    ),
    "lcc": "Please complete the code given below. \n{context}Next line of code:\n",
    "repobench-p": "Please complete the code given below. \n{context}{input}Next line of code:\n",
}

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
    best = [0] * (len(gold) + 1)
    for word in given:
        diagonal = 0
        for n, other in enumerate(gold, start=1):
            diagonal, best[n] = best[n], diagonal + 1 if word == other else max(best[n], best[n - 1])
    return _f_measure(best[-1], len(given), len(gold))


def class_match(reply: str, reference: str, classes: Sequence[str]) -> float:
    """1 / number of labels named, if the right one is among them; labels inside the right one's name do not count."""
    named = [label for label in classes if label in reply and not (label in reference and label != reference)]
    return 1 / len(named) if reference in named else 0.0


def number_match(reply: str, reference: str) -> float:
    """Share of the numbers in a reply that are the right one."""
    right, numbers = re.findall(r"\d+", reference)[0], re.findall(r"\d+", reply)
    return numbers.count(right) / len(numbers) if numbers else 0.0


def code_similarity(reply: str, reference: str) -> float:
    """Likeness of the first line of code to the right one."""
    lines = (line for line in reply.lstrip("\n").split("\n") if not any(mark in line for mark in ("`", "#", "//")))
    return SequenceMatcher(None, next(lines, ""), reference).ratio()


_SCORES: dict[str, Callable[[str, str], float]] = {
    **dict.fromkeys(("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "triviaqa"), word_f1),
    **dict.fromkeys(("gov_report", "multi_news", "samsum"), rouge_l),
    **dict.fromkeys(("passage_count", "passage_retrieval_en"), number_match),
    **dict.fromkeys(("lcc", "repobench-p"), code_similarity),
}


def longbench_score(reply: str, task: str, references: Sequence[str], classes: Sequence[str] = ()) -> float:
    """The best score over all right answers, 0 to 1.

    Args:
        reply: what the model wrote.
        task: name of the task.
        references: right answers.
        classes: all labels, for classification.
    """
    if task in _FIRST_LINE_ONLY:
        reply = reply.lstrip("\n").split("\n")[0]
    if task == "trec":
        return max(class_match(reply, reference, classes) for reference in references)
    return max(_SCORES[task](reply, reference) for reference in references)


def longbench_prompt(task: str, context: str, question: str) -> str:
    """The official prompt.

    Raises:
        BenchmarkError: a task that is not of LongBench-E.
    """
    if task not in PROMPTS:
        raise BenchmarkError(f"unknown LongBench-E task {task!r}. Known are {', '.join(PROMPTS)}.")
    # One pass, since contexts hold braces.
    values = {"{context}": context, "{input}": question}
    return re.sub(r"\{context\}|\{input\}", lambda match: values[match[0]], PROMPTS[task])


def length_group(words: int) -> str:
    """The group of a context's length in words, as in table 5 of the C2C paper."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"
