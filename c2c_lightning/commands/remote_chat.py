"""A conversation in the terminal with a server that has OpenAI's API."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console

from c2c_lightning.commands.line_chat import LineChat
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import RemoteServerError

COMPARED = ("receiver", "t2t")


class RemoteChat(LineChat):
    """A conversation with a model of a server, which keeps the caches of its earlier turns.

    Attributes:
        model: name of the model.
        messages: the conversation so far.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None,
        console: Console,
        max_tokens: int = 256,
        temperature: float = 0.0,
    ) -> None:
        """Name the server; the first message connects."""
        super().__init__(console)
        self.model, self.messages = model, Conversation()
        self._settings = {"max_tokens": max_tokens, "temperature": temperature, "stream": True}
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # An answer may be silent for long, as text-to-text is while its message is written.
        timeout = httpx.Timeout(600, connect=10)
        base = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout)

    def reset(self) -> None:
        """See `LineChat.reset`."""
        self.messages = []

    def talk(self, text: str) -> None:
        """Stream the answer; Ctrl-C ends it, and its beginning is kept."""
        messages, answer = [*self.messages, {"role": "user", "content": text}], ""
        try:
            for part in self.stream(self.model, messages):
                answer += part
                sys.stdout.write(part)
                sys.stdout.flush()
        except KeyboardInterrupt:
            if not answer:
                raise
        sys.stdout.write("\n")
        self.messages = [*messages, {"role": "assistant", "content": answer.strip()}]

    def compare(self, question: str) -> None:
        """See `LineChat.compare`."""
        messages = [*self.messages, {"role": "user", "content": question}]
        for name in (*COMPARED, self.model):
            self.show("".join(self.stream(name, messages)), name=name)

    def stream(self, model: str, messages: Conversation) -> Iterator[str]:
        """The parts of an answer.

        Raises:
            RemoteServerError: the server cannot be reached, or refuses.
        """
        body = {"model": model, "messages": messages, **self._settings}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise RemoteServerError(_message(response.read(), f"status {response.status_code}"))
                yield from _parts(response.iter_lines())
        except httpx.HTTPError as error:
            raise RemoteServerError(
                f"no answer from {self._client.base_url}: {error}. Check the address, and that `lightning serve` runs."
            ) from error
        except httpx.InvalidURL as error:
            raise RemoteServerError(f"--url is no address: {error}. Give one as http://127.0.0.1:8000.") from error


def _parts(lines: Iterator[str]) -> Iterator[str]:
    """The texts of server-sent events."""
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        chunk: Any = json.loads(data)
        if "error" in chunk:
            raise RemoteServerError(_message(data.encode(), "an error"))
        for choice in chunk["choices"]:
            if text := choice["delta"].get("content"):
                yield text


def _message(body: bytes, default: str) -> str:
    """The message of an error in OpenAI's shape."""
    try:
        return f"the server refuses: {json.loads(body)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answers with {default}, and is no server with OpenAI's API."
