"""Commands with a second word, such as `lightning analyze rank`: choice of the function, and a help that lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jsonargparse import ArgumentError
from rich.console import Console

from c2c_lightning.commands.parsing import did_you_mean

Subcommands = Mapping[str, Callable[[Sequence[str]], None]]


@dataclass(frozen=True)
class SubcommandTable:
    """The second words of a command.

    Attributes:
        command: the first word.
        kind: noun for a second word in messages, with its article.
        functions: what each second word runs; the docstring is its purpose in the help.
        examples: last part of the help.
    """

    command: str
    kind: str
    functions: Subcommands
    examples: str

    def run(self, args: Sequence[str]) -> None:
        """Run the function of the second word with the arguments after it.

        Raises:
            ArgumentError: there is no second word, or an unknown one.
        """
        if list(args[1:2]) in (["-h"], ["--help"]):
            Console().print(self._help(), markup=False, highlight=False, soft_wrap=True)
            raise SystemExit(0)
        if len(args) < 2:
            raise ArgumentError(None, f"{self.kind} must be named: {self._usage}")
        if args[1] not in self.functions:
            close = did_you_mean(args[1], self.functions)
            raise ArgumentError(None, f"{args[1]!r} is not {self.kind}: {self._usage}{close}")
        self.functions[args[1]](args[2:])

    @property
    def _usage(self) -> str:
        return f"lightning {self.command} {'|'.join(self.functions)} --config FILE or NAME"

    def _help(self) -> str:
        width = max(map(len, self.functions), default=0)
        purposes = [f"  {name:<{width}} {' '.join((f.__doc__ or '').split())}" for name, f in self.functions.items()]
        return "\n".join([f"usage: {self._usage} [options]", "", *purposes, "", self.examples])
