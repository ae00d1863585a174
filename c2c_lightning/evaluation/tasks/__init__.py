"""Benchmarks: where their questions come from, how they are worded, how answers are given and read."""

from c2c_lightning.evaluation.tasks.known_tasks import BENCHMARKS, resolve
from c2c_lightning.evaluation.tasks.question import Question, QuestionViews
from c2c_lightning.evaluation.tasks.question_loader import load_questions
from c2c_lightning.evaluation.tasks.task import Task

__all__ = ["BENCHMARKS", "Question", "QuestionViews", "Task", "load_questions", "resolve"]
