"""Reads the JSON body of a request within bounds of size, time and nesting."""

import asyncio
import json
from typing import Any

from fastapi import Request

from c2c_lightning.serving.api_errors import ApiError


async def read_json(request: Request, max_bytes: int, seconds: float) -> Any:
    """The value of a JSON body.

    Raises:
        ApiError: 415 for another type, 413 for a body that is too long, 408 for one that does not arrive in time, 400
            for one that is no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "The body must be JSON: send `Content-Type: application/json`.")
    try:
        async with asyncio.timeout(seconds):
            body = await _bytes(request, max_bytes)
    except TimeoutError as error:
        raise ApiError(408, f"The body did not arrive within {seconds:g} seconds.") from error
    try:
        # Python reads NaN and Infinity, which are no JSON.
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON: {str(error)[:200]}.", "invalid_json") from error


async def _bytes(request: Request, max_bytes: int) -> bytes:
    too_long = ApiError(413, f"The body is longer than {max_bytes} bytes, the limit of this server.", "too_large")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_long
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise too_long
    return bytes(body)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
