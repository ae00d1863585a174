"""The transcript as a page of the documentation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.first_hour.steps import Step

MOST_LINES = 40
"""Lines of a command's output that are shown."""

INTRODUCTION = """\
# The first hour

A newcomer's commands from a built wheel in an empty folder: two tiny local models, 50 rows and 20 multiple-choice
questions of one's own, to a fuser that chats and runs in lm-evaluation-harness. Written by
`python -m tools.first_hour --transcript docs/first_hour.md`; CI plays the same commands with a shorter training, after
the quickstart (`make first-hour`). Fifty rows show the way, not the method: the verdict below says what they prove.

**{minutes:.1f} minutes** in all on {machine}; the installation of PyTorch and the other requirements is not part of it.
**YAML written by hand: {by_hand} lines**, the task of lm-evaluation-harness; `lightning init` wrote {by_init} more.

| step | command | seconds |
| --- | --- | ---: |
{rows}
"""


@dataclass(frozen=True)
class Played:
    """A command that was run.

    Attributes:
        step: the command.
        output: its standard output and error.
        seconds: its wall time.
        is_success: whether it ended well and left its result.
    """

    step: Step
    output: str
    seconds: float
    is_success: bool


def page(played: Sequence[Played], machine: str, configuration: str, task: str) -> str:
    """The Markdown text.

    Args:
        played: all commands.
        machine: where they ran.
        configuration: the YAML that `lightning init` wrote.
        task: the YAML that is written by hand.
    """
    rows = "\n".join(
        f"| {part.step.title} | `{' '.join(part.step.command.split()[:2])}` | {part.seconds:.1f} |" for part in played
    )
    head = INTRODUCTION.format(
        minutes=sum(part.seconds for part in played) / 60,
        machine=machine,
        by_hand=len(task.splitlines()),
        by_init=len(configuration.splitlines()),
        rows=rows,
    )
    files = f"\n## The files\n\n`mine.yaml`, written by `lightning init`:\n\n```yaml\n{configuration}```\n"
    files += f"\n`tasks/mine.yaml`, written by hand:\n\n```yaml\n{task}```\n"
    return head + "".join(_section(part) for part in played) + files


def _section(part: Played) -> str:
    keyboard = "".join(f"> {line}\n" for line in part.step.keyboard.splitlines())
    lines = clean(part.output)
    if len(lines) > MOST_LINES:
        left_out = len(lines) - MOST_LINES
        lines = [*lines[: MOST_LINES // 2], f"[… {left_out} lines]", *lines[-MOST_LINES // 2 :]]
    output = "\n".join(lines)
    text = f"$ {part.step.command}\n{keyboard}{output}".rstrip()
    return f"\n## {part.step.title}\n\n{part.seconds:.1f} s\n\n```text\n{text}\n```\n"


def clean(output: str) -> list[str]:
    """Lines as a terminal shows them: without control sequences, with the last state of a line that is redrawn."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    lines = (line.rstrip().rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]
