"""The HTTP application of a sharer: prompts in, cache entries out."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI, Request, Response

from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.channel.sharer_cache import MAX_BYTES, SharerCache
from c2c_lightning.channel.sharer_link import SharerInfo
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.model_fingerprint import model_fingerprint
from c2c_lightning.serving.api_errors import RETRY, ApiError
from c2c_lightning.serving.prefill_body import PrefillBody
from c2c_lightning.serving.request_body import read_json
from c2c_lightning.serving.request_frame import RequestFrame
from c2c_lightning.serving.server_metrics import ServerMetrics
from c2c_lightning.serving.server_settings import ServerSettings


class SharerServer:
    """A sharer that prefills prompts for receivers in other processes, one request after the other.

    Attributes:
        lm: the sharer.
        info: its description.
        settings: limits; `max_waiting` requests wait at most.
    """

    def __init__(self, lm: FrozenLM, settings: ServerSettings, max_bytes: int = MAX_BYTES) -> None:
        """Take a loaded sharer, and the largest answer in bytes."""
        self.lm, self.settings, self.max_bytes = lm, settings, max_bytes
        self.entry_bytes = lm.empty_kv(1)[0].keys.element_size()
        self.info = describe_sharer(lm)
        self._thread = ThreadPoolExecutor(1, "prefill")
        self._num_waiting, self._is_closed = 0, False

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """End the thread with the app."""
        yield
        self._thread.shutdown(wait=False, cancel_futures=True)

    def shut_down(self, seconds: float) -> None:
        """Refuse further requests; those that have begun end by themselves."""
        self._is_closed = True

    def describe(self) -> dict[str, Any]:
        """The sharer's description."""
        return self.info.to_json()

    def health(self) -> dict[str, Any]:
        """State of the server."""
        return {"status": "ok", "waiting": self._num_waiting}

    async def prefill(self, request: Request) -> Response:
        """The entries of a batch of prompts, as the bytes of a `SharerCache`."""
        content = await read_json(request, self.settings.max_body_bytes, self.settings.body_seconds)
        body = PrefillBody.model_validate(content)
        self._check(body)
        self._num_waiting += 1
        try:
            data = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, body)
        finally:
            self._num_waiting -= 1
        return Response(data, media_type="application/octet-stream")

    def _check(self, body: PrefillBody) -> None:
        if self._is_closed:
            raise ApiError(503, "The sharer is shutting down.", "shutting_down", headers=RETRY)
        if self._num_waiting >= self.settings.queue.max_waiting:
            raise ApiError(429, f"{self._num_waiting} requests wait already.", "queue_full", headers=RETRY)
        try:
            num_bytes = body.num_bytes(self.info.geometry, self.entry_bytes)
        except ValueError as error:
            raise ApiError(400, f"{error}.", param="layers") from error
        if num_bytes > self.max_bytes:
            raise ApiError(
                413, f"The cache would have {num_bytes:.0f} bytes, more than {self.max_bytes}. Send fewer prompts."
            )
        self.lm.limits.check_ids(body.tokens)
        self.lm.limits.check_length(len(body.input_ids[0]))

    @torch.no_grad()
    def _run(self, body: PrefillBody) -> bytes:
        tokens, is_read = body.tokens, body.read
        num_layers, end = (
            max(body.layers, default=-1) + 1,
            int(is_read.any(0).nonzero().max()) + 1 if is_read.any() else 0,
        )
        kv = self.lm.prefill_tokens(tokens.to(self.lm.device), end, None, num_layers)
        cache = SharerCache.collect(kv, is_read, body.layers, self.info.fingerprint, is_read.shape[1])
        return cache.to_bytes(body.channel)


def describe_sharer(lm: FrozenLM) -> SharerInfo:
    """What a sharer's process says of its model."""
    dtype = str(lm.empty_kv(1)[0].keys.dtype).removeprefix("torch.")
    return SharerInfo(
        lm.spec.path, model_fingerprint(lm), tokenizer_fingerprint(lm.tokenizer), lm.geometry, dtype,
        lm.max_tokens, lm.limits.num_embeddings,
    )  # fmt: skip


def create_sharer_app(lm: FrozenLM, settings: ServerSettings | None = None, max_bytes: int = MAX_BYTES) -> FastAPI:
    """The ASGI app of a sharer; its `state.server` is the `SharerServer`.

    Args:
        lm: the sharer.
        settings: limits and key.
        max_bytes: largest answer.
    """
    server = SharerServer(lm, settings or ServerSettings(), max_bytes)
    app = FastAPI(title="c2c_lightning sharer", lifespan=server.lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_api_route("/health", server.health)
    app.add_api_route("/v1/sharer", server.describe)
    app.add_api_route("/v1/prefill", server.prefill, methods=["POST"], response_model=None)
    app.add_middleware(RequestFrame, metrics=ServerMetrics(), api_key=server.settings.api_key)
    return app
