"""Server-sent events, ended when the client leaves or does not read them in time."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class EventStream(Response):
    """An ASGI response that streams events.

    Args:
        events: the data of each event.
        on_close: called once at the end, also where the client has left.
        time_limit: seconds for the whole response, so that clients that do not read cannot hold their place for ever.
    """

    def __init__(self, events: AsyncIterator[str], on_close: Callable[[], None], time_limit: float) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter for nginx
        super().__init__(media_type="text/event-stream", headers=headers)
        self.events, self.on_close, self.time_limit = events, on_close, time_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events."""
        tasks = [asyncio.create_task(self._send(send)), asyncio.create_task(disconnected(receive))]
        try:
            await asyncio.wait(tasks, timeout=self.time_limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.on_close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for data in self.events:
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def disconnected(receive: Receive) -> None:
    """Wait until the client has left; the body of its request has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
