"""`lightning chat`: talk to a fused model in the terminal."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from transformers import TextStreamer

from c2c_lightning.errors import C2CError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly
from c2c_lightning.responders.text_to_text import TextToText

HELP = "Type a message. /compare QUESTION: receiver, T2T and C2C side by side. /reset: start anew. /quit: leave."


def run_chat(args: Sequence[str]) -> None:
    """Talk to a fused model; what you type is answered on the fused cache, word by word."""
    parser = ArgumentParser(prog="lightning chat", description=run_chat.__doc__, exit_on_error=False)
    parser.add_argument("--fuser", type=str, required=True, help="fuser directory or hub id")
    parser.add_argument("--receiver", help="another copy of the receiver; default what the fuser names")
    parser.add_argument("--sharers", nargs="+", help="other copies of the sharers")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="type of the frozen models")
    parser.add_argument("--device", help="where to run; default cuda if there is one")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer, in tokens")
    parser.add_argument("--do_sample", type=bool, default=False, help="sample instead of taking the likeliest token")
    parser.add_argument("--message_prompt", default=TEXT_3, help="what /compare asks the sharer for in text-to-text")
    options = parser.parse_args(list(args[1:]))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = C2CModel.from_pretrained(
        options.fuser, options.receiver, options.sharers, dtype=options.dtype, device=device
    )
    kwargs = {"max_new_tokens": options.max_new_tokens, "do_sample": options.do_sample}
    Chat(model, Console(), kwargs, options.message_prompt).run()


class Chat:
    """One conversation at the terminal."""

    def __init__(
        self, model: C2CModel, console: Console, generate_kwargs: dict[str, Any], message_prompt: str = TEXT_3
    ) -> None:
        """Begin a conversation with `model`; `message_prompt` asks the sharer for a message, with `{question}`."""
        self.model, self.console, self.generate_kwargs = model, console, generate_kwargs
        self.message_prompt = message_prompt
        self.dialogue = ChatSession(model)

    def run(self) -> None:
        """Read and answer lines until the input ends."""
        if sys.stdin.isatty():
            self.console.print(HELP, style="dim")
        while True:
            try:
                line = self.console.input("[bold]> [/bold]" if sys.stdin.isatty() else "").strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line == "/quit":
                return
            try:
                self.answer(line)
            except C2CError as error:
                self.console.print(f"{error}", style="red")

    def answer(self, line: str) -> None:
        """Do what one line asks for."""
        if not line:
            return
        if line == "/reset":
            self.dialogue = ChatSession(self.model)
        elif line.startswith("/compare"):
            self.compare(line.removeprefix("/compare").strip())
        elif line.startswith("/"):
            self.console.print(HELP, style="dim")
        else:
            self.talk(line)

    def talk(self, text: str) -> None:
        """Answer a message and keep both in the conversation, of which only what is new is run."""
        streamer = TextStreamer(self.model.receiver.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.dialogue.send(text, streamer=streamer, **self.generate_kwargs)

    def compare(self, question: str) -> None:
        """The same question to the receiver alone, to both by text, and to both by cache."""
        if not question:
            self.console.print(HELP, style="dim")
            return
        asked = [[*self.dialogue.messages, {"role": "user", "content": question}]]
        receiver, sharer = ReceiverOnly(self.model.receiver), SharerOnly(self.model.sharers[0])
        for responder in (receiver, TextToText(receiver, sharer, self.message_prompt)):
            self.console.print(
                f"[bold]{responder.name}[/bold] {responder.respond(asked, **self.generate_kwargs)[0].text}"
            )
        self.console.print(f"[bold]c2c[/bold] {self.dialogue.peek(question, **self.generate_kwargs)}")
