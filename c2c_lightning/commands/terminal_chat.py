"""`lightning chat`: a conversation with a fused model in the terminal."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

import torch
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.text import Text
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.errors import C2CError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly
from c2c_lightning.responders.text_to_text import TextToText

HELP = """\
Type a message. Ctrl-C stops an answer, Ctrl-D leaves.
/compare QUESTION  receiver, text-to-text and C2C on the same question; the conversation stays as it is
/reset             a new conversation
/quit              leave"""


def run_chat(args: Sequence[str]) -> None:
    """Talk to a fused model; each message is answered on the fused cache, token by token."""
    parser = CommandParser(prog="lightning chat", description=run_chat.__doc__)
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory or hub id")
    parser.add_argument("--receiver", help="another copy of the receiver; default the one that the fuser names")
    parser.add_argument("--sharers", nargs="+", help="other copies of the sharers")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="type of the frozen models")
    parser.add_argument("--device", help="where to run; default cuda if there is one")
    parser.add_argument("--max_new_tokens", type=PositiveInt, default=256, help="longest answer, in tokens")
    parser.add_argument("--do_sample", type=bool, default=False, help="sample instead of taking the likeliest token")
    parser.add_argument("--message_prompt", default=TEXT_3, help="what /compare asks the sharer for in text-to-text")
    options = parser.options(args[1:])
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = C2CModel.from_pretrained(
        options.fuser, options.receiver, options.sharers, dtype=options.dtype, device=device
    )
    kwargs = {"max_new_tokens": options.max_new_tokens, "do_sample": options.do_sample}
    TerminalChat(model, Console(), kwargs, options.message_prompt).run()


class StopOnInterrupt(StoppingCriteria):
    """Ends an answer at its next token after Ctrl-C, so that its beginning is kept; a second Ctrl-C raises."""

    def __init__(self) -> None:
        self.is_stopped = False

    def __enter__(self) -> Self:
        """Handle SIGINT."""
        self._former = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._former)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.is_stopped:
            raise KeyboardInterrupt
        self.is_stopped = True

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: Any) -> Tensor:
        """Whether each row has ended, (batch,)."""
        return torch.full((len(input_ids),), self.is_stopped, device=input_ids.device)


class TerminalChat:
    """One conversation at the terminal.

    Attributes:
        model: the fused model.
        console: where to print.
        generate_kwargs: settings of every answer.
        message_prompt: request for the sharer's message in text-to-text, with `{question}`.
        session: the conversation.
    """

    def __init__(
        self, model: C2CModel, console: Console, generate_kwargs: dict[str, Any], message_prompt: str = TEXT_3
    ) -> None:
        """Begin a conversation."""
        self.model, self.console, self.generate_kwargs = model, console, generate_kwargs
        self.message_prompt = message_prompt
        self.session = ChatSession(model)

    def run(self) -> None:
        """Read and answer lines until the input ends."""
        if is_terminal := sys.stdin.isatty():
            edit_lines()
            self._print(HELP, "dim")
        while True:
            try:
                line = input("> " if is_terminal else "").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line == "/quit":
                return
            try:
                self.answer(line)
            except C2CError as error:
                self._print(str(error), "red")
            except KeyboardInterrupt:
                self._print("stopped; the conversation is as it was before", "dim")

    def answer(self, line: str) -> None:
        """Do what one line asks for."""
        if not line:
            return
        if line == "/reset":
            self.session = ChatSession(self.model)
        elif line.startswith("/compare"):
            self.compare(line.removeprefix("/compare").strip())
        elif line.startswith("/"):
            self._print(HELP, "dim")
        else:
            self.talk(line)

    def talk(self, text: str) -> None:
        """Answer a message and keep both in the conversation; only new tokens are run."""
        streamer = TextStreamer(self.model.receiver.tokenizer, skip_prompt=True, skip_special_tokens=True)
        with StopOnInterrupt() as stop:
            criteria = StoppingCriteriaList([stop])
            self.session.send(text, streamer=streamer, stopping_criteria=criteria, **self.generate_kwargs)

    def compare(self, question: str) -> None:
        """The same question to the receiver alone, to both models by text, and to both by cache."""
        if not question:
            self._print(HELP, "dim")
            return
        conversation = [[*self.session.messages, {"role": "user", "content": question}]]
        receiver, sharer = ReceiverOnly(self.model.receiver), SharerOnly(self.model.sharers[0])
        for responder in (receiver, TextToText(receiver, sharer, self.message_prompt)):
            answer = responder.respond(conversation, **self.generate_kwargs)[0]
            self._print(answer.text, name=responder.name)
        self._print(self.session.peek(question, **self.generate_kwargs), name="c2c")

    def _print(self, text: str, style: str = "", name: str = "") -> None:
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
