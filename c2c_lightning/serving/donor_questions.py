"""Questions whose sharer caches take the place of a request's own in the control `mismatched`."""

import json

from c2c_lightning import embedded
from c2c_lightning.data.messages import Conversation
from c2c_lightning.evaluation.mismatched import DonorPool
from c2c_lightning.responders.question_prompt import QuestionPrompt

GENERAL_QUESTIONS = (
    "Which planet of the solar system has the most moons?",
    "Who wrote the novel Moby-Dick, and in which year was it published?",
    "Why is the sky blue during the day and red in the evening?",
    "How many bones does an adult human body have?",
    "What is the difference between a virus and a bacterium?",
    "Explain in two sentences how a refrigerator cools its contents.",
    "A train travels 180 kilometres in two hours and a quarter. What is its mean speed?",
    "Name three countries that border Switzerland.",
    "Write a Python function that returns the longest word of a sentence, and explain its running time.",
)
"""Donors for pairs that are not embedded in the package."""


class DonorQuestions:
    """Chooses another question of similar length."""

    def __init__(self, conversations: list[Conversation]) -> None:
        """Take the possible donors, at least two."""
        self._pool = DonorPool(conversations)

    @classmethod
    def for_sharer(cls, path: str) -> "DonorQuestions":
        """Held-out facts of the embedded world for an embedded sharer, general questions for all others."""
        if not path.startswith(embedded.PREFIX):
            return cls([[{"role": "user", "content": text}] for text in GENERAL_QUESTIONS])
        lines = embedded.facts("heldout_chat.jsonl").read_text(encoding="utf-8").splitlines()
        return cls([json.loads(line)["messages"][:-1] for line in lines])

    def of(self, conversation: Conversation) -> Conversation:
        """The donor of a conversation; always the same one."""
        return list(self._pool.prompts[self._pool.donor(QuestionPrompt(conversation))])
