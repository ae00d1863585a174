"""HTTP client of a sharer in another process, with retries, bounds and clear errors."""

import os
import time
from dataclasses import asdict
from typing import Any

import httpx

from c2c_lightning.channel.sharer_cache import MAX_BYTES
from c2c_lightning.channel.sharer_link import KEY_VARIABLE, PrefillRequest, SharerInfo
from c2c_lightning.errors import ChannelError

_RETRIED = {429, 500, 502, 503, 504}


class SharerMissingError(ChannelError):
    """A sharer that does not answer."""


class SharerClient:
    """Talks to `lightning sharer`. The key is read from the environment variable `C2C_SHARER_KEY`.

    Attributes:
        url: of the sharer's process.
    """

    def __init__(self, url: str, timeout: float = 60.0, attempts: int = 3, max_bytes: int = MAX_BYTES) -> None:
        """Prepare to talk; nothing is sent yet.

        Args:
            url: `http://HOST:PORT`.
            timeout: seconds to wait for one answer.
            attempts: how often a request is sent at most.
            max_bytes: longest answer that is read.
        """
        self.url, self.attempts, self.max_bytes = url.rstrip("/"), attempts, max_bytes
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Environment variables of proxies are for the web, not for a neighbour in the same cluster.
        limits = httpx.Timeout(timeout, connect=min(timeout, 5.0))
        try:
            self._http = httpx.Client(base_url=self.url, timeout=limits, headers=headers, trust_env=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise ChannelError(f"{url!r} is no address of a sharer: write http://HOST:PORT.") from error

    def info(self) -> SharerInfo:
        """The sharer's description.

        Raises:
            SharerMissingError: no sharer answers.
            ChannelError: the answer is not that of a sharer.
        """
        response = self._send("GET", "/v1/sharer", None)
        try:
            content = response.json()
        except ValueError:
            content = None
        return SharerInfo.from_json(content, self.url)

    def prefill(self, request: PrefillRequest) -> bytes:
        """The bytes of a `SharerCache`.

        Raises:
            SharerMissingError: the sharer does not answer within the time.
            ChannelError: the request is refused; the message is the sharer's.
        """
        return self._send("POST", "/v1/prefill", asdict(request)).content

    def _send(self, method: str, path: str, content: Any) -> httpx.Response:
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(0.2 * 2 ** (attempt - 1))
            try:
                response = self._bounded(method, path, content)
            except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
                problem = str(error) or type(error).__name__
                continue
            if response.status_code < 400:
                return response
            problem = _message(response)
            if response.status_code not in _RETRIED:
                raise ChannelError(f"the sharer at {self.url} refuses the request: {problem}")
        raise SharerMissingError(
            f"the sharer at {self.url} does not answer ({problem}; {self.attempts} attempts). Start it there with "
            "`lightning sharer`, or set `on_missing: receiver_alone` to answer without it."
        )

    def _bounded(self, method: str, path: str, content: Any) -> httpx.Response:
        """One request; its answer is read up to `max_bytes`."""
        with self._http.stream(method, path, json=content) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > self.max_bytes:
                    raise ChannelError(f"the answer of the sharer at {self.url} is longer than {self.max_bytes} bytes.")
            return httpx.Response(response.status_code, content=bytes(body))


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
