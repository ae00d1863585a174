"""Made-up training rows."""

import json
import random
from pathlib import Path


def chat_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Conversations of very different lengths; each question is asked once."""
    draw = random.Random(seed)
    words = ["capital", "city", "river", "answer", "question", "arrow", "morning", "Arlen", "Velmora", "why", "there"]

    def text(longest: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, longest)))

    return [
        {
            "messages": [
                {"role": "user", "content": f"{seed}/{number}: {text(30)}?"},
                {"role": "assistant", "content": f"{number} {text(12)}."},
            ]
        }
        for number in range(count)
    ]


def write_chat(path: Path, count: int, seed: int = 0) -> str:
    """A JSON lines file of `chat_rows`, and its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in chat_rows(count, seed)))
    return str(path)
