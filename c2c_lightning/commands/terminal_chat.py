"""`lightning chat`: a conversation with a fused model in the terminal."""

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

import torch
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt
from rich.console import Console
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from c2c_lightning.commands.line_chat import LineChat
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.commands.remote_chat import RemoteChat
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly
from c2c_lightning.responders.text_to_text import TextToText


def run_chat(args: Sequence[str]) -> None:
    """Talk to a fused model; each message is answered on the fused cache, token by token."""
    parser = CommandParser(prog="lightning chat", description=run_chat.__doc__)
    parser.add_argument("--fuser", help="fuser directory or hub id")
    parser.add_argument("--url", help="instead: address of a server, as http://127.0.0.1:8000 of `lightning serve`")
    parser.add_argument("--model", default="c2c", help="with --url: name of the model")
    parser.add_argument("--api_key", help="with --url: key of the server; default the variable C2C_API_KEY")
    parser.add_argument("--receiver", help="another copy of the receiver; default the one that the fuser names")
    parser.add_argument("--sharers", nargs="+", help="other copies of the sharers")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="type of the frozen models")
    parser.add_argument("--device", help="where to run; default cuda if there is one")
    parser.add_argument("--max_new_tokens", type=PositiveInt, default=256, help="longest answer, in tokens")
    parser.add_argument("--do_sample", type=bool, default=False, help="sample instead of taking the likeliest token")
    parser.add_argument("--message_prompt", default=TEXT_3, help="what /compare asks the sharer for in text-to-text")
    options = parser.options(args[1:])
    if (options.fuser is None) == (options.url is None):
        raise ArgumentError(None, "give either --fuser, to run a fused model here, or --url, to talk to a server")
    if options.url is not None:
        key, limit = options.api_key or os.environ.get("C2C_API_KEY"), options.max_new_tokens
        return RemoteChat(options.url, options.model, key, Console(), limit, 1.0 if options.do_sample else 0.0).run()
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = C2CModel.from_pretrained(
        options.fuser, options.receiver, options.sharers, dtype=options.dtype, device=device
    )
    kwargs: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "do_sample": options.do_sample}
    return TerminalChat(model, Console(), kwargs, options.message_prompt).run()


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


class TerminalChat(LineChat):
    """A conversation with a model of this process.

    Attributes:
        model: the fused model.
        generate_kwargs: settings of every answer.
        message_prompt: request for the sharer's message in text-to-text, with `{question}`.
        session: the conversation.
    """

    def __init__(
        self, model: C2CModel, console: Console, generate_kwargs: dict[str, Any], message_prompt: str = TEXT_3
    ) -> None:
        """Begin a conversation."""
        super().__init__(console)
        self.model, self.generate_kwargs, self.message_prompt = model, generate_kwargs, message_prompt
        self.session = ChatSession(model)

    def reset(self) -> None:
        """See `LineChat.reset`."""
        self.session = ChatSession(self.model)

    def talk(self, text: str) -> None:
        """Answer a message and keep both in the conversation; only new tokens are run."""
        streamer = TextStreamer(self.model.receiver.tokenizer, skip_prompt=True, skip_special_tokens=True)
        with StopOnInterrupt() as stop:
            criteria = StoppingCriteriaList([stop])
            self.session.send(text, streamer=streamer, stopping_criteria=criteria, **self.generate_kwargs)

    def compare(self, question: str) -> None:
        """The same question to the receiver alone, to both models by text, and to both by cache."""
        conversation = [[*self.session.messages, {"role": "user", "content": question}]]
        receiver, sharer = ReceiverOnly(self.model.receiver), SharerOnly(self.model.sharers[0])
        for responder in (receiver, TextToText(receiver, sharer, self.message_prompt)):
            answer = responder.respond(conversation, **self.generate_kwargs)[0]
            self.show(answer.text, name=responder.name)
        self.show(self.session.peek(question, **self.generate_kwargs), name="c2c")
