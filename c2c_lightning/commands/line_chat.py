"""A conversation that is typed line by line: the commands, whoever answers."""

import sys
from abc import ABC, abstractmethod

from rich.console import Console
from rich.text import Text

from c2c_lightning.errors import C2CError

HELP = """\
Type a message. Ctrl-C stops an answer, Ctrl-D leaves.
/compare QUESTION  receiver, text-to-text and C2C on the same question; the conversation stays as it is
/reset             a new conversation
/quit              leave"""


class LineChat(ABC):
    """One conversation at the terminal.

    Attributes:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self.console = console

    @abstractmethod
    def reset(self) -> None:
        """Begin a new conversation."""

    @abstractmethod
    def talk(self, text: str) -> None:
        """Answer a message, and keep both in the conversation."""

    @abstractmethod
    def compare(self, question: str) -> None:
        """Answer a question by receiver, text-to-text and C2C; the conversation stays as it is."""

    def run(self) -> None:
        """Read and answer lines until the input ends.

        Raises:
            SystemExit: with 1, where no line of an input that is not a terminal could be answered.
        """
        num_answered, num_failed = 0, 0
        if is_terminal := sys.stdin.isatty():
            edit_lines()
            self.show(HELP, "dim")
        while True:
            try:
                line = input("> " if is_terminal else "").strip()
            except (EOFError, KeyboardInterrupt):
                line = "/quit"
            if line == "/quit":
                break
            try:
                self.answer(line)
                num_answered += bool(line)
            except C2CError as error:
                num_failed += 1
                self.show(str(error), "red")
            except KeyboardInterrupt:
                self.show("stopped; the conversation is as it was before", "dim")
        if num_failed and not num_answered and not is_terminal:
            raise SystemExit(1)

    def answer(self, line: str) -> None:
        """Do what one line asks for."""
        if not line:
            return
        if line == "/reset":
            self.reset()
        elif line.startswith("/compare") and (question := line.removeprefix("/compare").strip()):
            self.compare(question)
        elif line.startswith("/"):
            self.show(HELP, "dim")
        else:
            self.talk(line)

    def show(self, text: str, style: str = "", name: str = "") -> None:
        """Print text as it is: brackets are no markup, colons no emoji."""
        parts = [(f"{name} ", "bold"), (text, style)] if name else [(text, style)]
        self.console.print(Text.assemble(*parts), soft_wrap=True)


def edit_lines() -> None:
    """Give `input` line editing, a history, and pasted text of any length and several lines, where the system can."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.parse_and_bind("set enable-bracketed-paste on")
