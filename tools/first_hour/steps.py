"""The commands of the first hour, and the files that they work on."""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from c2c_lightning import embedded

ROWS, QUESTIONS = 50, 20

#: The only YAML that a newcomer writes: a task of lm-evaluation-harness.
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
"""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: its heading.
        command: shell words after `$`.
        result: a file that it leaves, relative to the working folder.
        keyboard: lines that are typed.
    """

    title: str
    command: str
    result: str | None = None
    keyboard: str = ""


def write_inputs(folder: Path) -> None:
    """Two tiny models as local folders, rows, multiple-choice questions on other facts, and the harness's task."""
    for name in ("receiver", "sharer"):
        shutil.copytree(embedded.path(name), folder / "models" / name)
    draw = random.Random(0)
    rows = [json.loads(line) for line in embedded.facts("train_chat.jsonl").read_text().splitlines()]
    chosen = [{"messages": row["messages"]} for row in draw.sample(rows, ROWS)]
    questions = [json.loads(line) for line in embedded.facts("heldout.jsonl").read_text().splitlines()]
    asked = [
        {name: row[name] for name in ("question", "choices", "answer")} for row in draw.sample(questions, QUESTIONS)
    ]
    for name, content in (("rows", chosen), ("questions", asked)):
        text = "".join(f"{json.dumps(row)}\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.yaml").write_text(TASK, encoding="utf-8")


def quickstart(max_steps: int | None) -> list[Step]:
    """The quickstart, by the names of its configurations.

    Args:
        max_steps: optimizer steps; fewer questions are asked then too. Default those of the configuration.
    """
    limit = "" if max_steps is None else " --data.benchmarks '[{name: quickstart, limit: 40}]'"
    fit = f"lightning fit --config quickstart{_few(max_steps)}"
    return [
        Step("The quickstart: train", fit, "runs/quickstart/fuser"),
        Step("The quickstart: evaluate", f"lightning test --config quickstart{limit}", "runs/quickstart/report.json"),
    ]


def own_pair(max_steps: int | None) -> list[Step]:
    """All commands for models and rows of one's own; `max_steps` as above."""
    return [
        Step("What is installed", "lightning doctor"),
        Step("The configurations that come with it", "lightning config list"),
        Step(
            "A configuration for two models and rows of one's own",
            "lightning init --receiver models/receiver --sharer models/sharer --data rows.jsonl --output mine.yaml",
            "mine.yaml",
        ),
        Step("Train", f"lightning fit --config mine.yaml{_few(max_steps)}", "runs/mine/fuser"),
        Step(
            "Evaluate on one's own questions",
            "lightning test --model.fuser runs/mine/fuser --data.benchmarks '[{name: mine, path: questions.jsonl}]' "
            "--trainer.default_root_dir runs/mine",
            "runs/mine/report.json",
        ),
        Step(
            "Export a checkpoint",
            "lightning export --ckpt_path runs/mine/checkpoints/last.ckpt --output_dir exported",
            "exported/model.safetensors",
        ),
        Step(
            "Chat",
            "lightning chat --fuser exported --max_new_tokens 8",
            keyboard="What is the capital of Nepi?\n/compare What is the food of Nepi?\n/quit\n",
        ),
        Step(
            "lm-evaluation-harness",
            "lightning lm-eval --model c2c --model_args fuser=exported --tasks mine --include_path tasks",
        ),
    ]


def _few(max_steps: int | None) -> str:
    return "" if max_steps is None else f" --trainer.max_steps {max_steps} --trainer.val_check_interval {max_steps}"
