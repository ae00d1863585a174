"""ASGI middleware around every request: its id, its key, its count in the metrics, its errors."""

import hmac
import logging
import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from c2c_lightning.serving.api_errors import ApiError, api_error
from c2c_lightning.serving.server_metrics import ServerMetrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestFrame:
    """Answers requests without the right key with 401, and errors in OpenAI's shape.

    Args:
        app: the app.
        metrics: counts requests.
        api_key: protects all paths that begin with `/v1/`.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, api_key: str | None) -> None:
        self.app, self.metrics, self.api_key = app, metrics, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, status = Headers(scope=scope), list[int]()
        request_id = _accepted_id(headers.get("x-request-id"))
        framed = _with_id(send, request_id, status.append)
        try:
            self._check_key(scope["path"], headers)
            await self.app(scope, receive, framed)
        except Exception as error:
            refusal = api_error(error)
            if refusal.status >= 500:
                logger.exception("request %s failed", request_id)
            if not status:
                await refusal.response()(scope, receive, framed)
        finally:
            route = scope.get("route")
            self.metrics.requests.labels(getattr(route, "path", "other"), str(status[0] if status else 499)).inc()

    def _check_key(self, path: str, headers: Headers) -> None:
        if self.api_key is None or not path.startswith("/v1/"):
            return
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("latin-1", "replace"), self.api_key.encode()):
            raise ApiError(401, "The API key is missing or wrong: send `Authorization: Bearer KEY`.", "invalid_api_key")


def _accepted_id(given: str | None) -> str:
    """The client's id, if it is short printable ASCII; else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _with_id(send: Send, request_id: str, on_status: Callable[[int], None]) -> Send:
    async def framed(message: Message) -> None:
        if message["type"] == "http.response.start":
            on_status(message["status"])
            MutableHeaders(scope=message)["X-Request-ID"] = request_id
        await send(message)

    return framed
