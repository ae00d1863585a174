"""Benchmarks: where their questions come from, how they are worded, how answers are given and read."""

from c2c_lightning.evaluation.benchmarks.load import load_questions
from c2c_lightning.evaluation.benchmarks.question import Question, QuestionViews
from c2c_lightning.evaluation.benchmarks.registry import BENCHMARKS, resolve
from c2c_lightning.evaluation.benchmarks.spec import Benchmark

__all__ = ["BENCHMARKS", "Benchmark", "Question", "QuestionViews", "load_questions", "resolve"]
