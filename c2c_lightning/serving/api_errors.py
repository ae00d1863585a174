"""Errors in the shape of OpenAI's API."""

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from c2c_lightning.errors import C2CError
from c2c_lightning.serving.model_catalogue import UnknownModelError
from c2c_lightning.serving.prepared_prompt import TooLongError
from c2c_lightning.serving.waiting_rows import QueueFullError, ShuttingDownError


class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        message: what is wrong, and how to mend it.
        code: OpenAI's code, where it has one.
        param: the field that is wrong.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.body, self.status, self.headers)


_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

RETRY = {"Retry-After": "1"}


def api_error(error: Exception) -> ApiError:
    """The refusal that corresponds to an error; only messages of this package are passed on."""
    match error:
        case ApiError():
            return error
        case UnknownModelError():
            return ApiError(404, str(error), "model_not_found", "model")
        case TooLongError():
            return ApiError(400, str(error), "context_length_exceeded", "messages")
        case QueueFullError():
            return ApiError(429, str(error), "queue_full", headers=RETRY)
        case ShuttingDownError():
            return ApiError(503, str(error), "shutting_down", headers=RETRY)
        case ValidationError():
            return _invalid(error)
        case C2CError():
            return ApiError(400, str(error))
        case _:
            return ApiError(500, "The server failed to answer; its log has the reason.", "internal_error")


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"`{param}`: {text}." if param else f"{text}.", param=param or None)
