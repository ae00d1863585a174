"""Benchmarks: questions, prompts, answer modes and scoring rules."""

from c2c_lightning.evaluation.tasks.benchmark_question import Question
from c2c_lightning.evaluation.tasks.known_tasks import BENCHMARKS, resolve
from c2c_lightning.evaluation.tasks.question_loader import load_questions
from c2c_lightning.evaluation.tasks.task import Task

__all__ = ["BENCHMARKS", "Question", "Task", "load_questions", "resolve"]
