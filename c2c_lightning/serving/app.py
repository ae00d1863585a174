"""The HTTP application: OpenAI's endpoints over an `AnswerEngine`."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from c2c_lightning.serving.answer_engine import AnswerEngine
from c2c_lightning.serving.answer_formats import AnswerFormat, ChatFormat, TextFormat
from c2c_lightning.serving.api_errors import ApiError, api_error
from c2c_lightning.serving.api_requests import AnswerBody, ChatBody, TextBody
from c2c_lightning.serving.conversation_check import checked_conversation
from c2c_lightning.serving.event_stream import EventStream, disconnected
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.model_list import model_list, model_object
from c2c_lightning.serving.page_files import add_page
from c2c_lightning.serving.pending_answers import PendingAnswers
from c2c_lightning.serving.prepared_prompt import PreparedPrompt
from c2c_lightning.serving.request_body import read_json
from c2c_lightning.serving.request_frame import RequestFrame
from c2c_lightning.serving.served_models import ServedModel
from c2c_lightning.serving.server_metrics import ServerMetrics
from c2c_lightning.serving.server_settings import ServerSettings

Body = TypeVar("Body", bound=AnswerBody)


class AnswerServer:
    """The parts of one running server.

    Attributes:
        catalogue: the models.
        settings: limits and defaults.
        metrics: the metrics.
        engine: answers requests in batches.
    """

    def __init__(self, catalogue: ModelCatalogue, settings: ServerSettings) -> None:
        """Prepare the engine."""
        self.catalogue, self.settings, self.metrics = catalogue, settings, ServerMetrics()
        self.engine = AnswerEngine(settings.queue, settings.num_threads, self.metrics.batch_size.observe)
        self.metrics.watch(self.engine, catalogue.prefixes)
        # One thread: templates and tokenizers are fast, and the event loop must not wait for long prompts.
        self._encoding = ThreadPoolExecutor(1, "encoding")

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the engine while the app runs."""
        self.engine.start()
        yield
        self.engine.shut_down(0.0)
        await asyncio.to_thread(self.engine.join, 1.0)
        self._encoding.shutdown(wait=False, cancel_futures=True)

    async def chat(self, request: Request) -> Response:
        """Answer a conversation; streamed or whole."""
        body = await self._body(request, ChatBody)
        served = self.catalogue.get(body.model)

        def prepare() -> list[PreparedPrompt]:
            conversation = checked_conversation(body.messages)
            return [served.prepare(conversation, body.c2c.choices(conversation))]

        return await self._answer(request, body, served, prepare, ChatFormat(served.name, served.receiver.tokenizer))

    async def text(self, request: Request) -> Response:
        """Continue texts; streamed or whole."""
        body = await self._body(request, TextBody)
        served = self.catalogue.get(body.model)

        def prepare() -> list[PreparedPrompt]:
            return [served.prepare_text(text, body.c2c.choices(None)) for text in body.prompts]

        return await self._answer(request, body, served, prepare, TextFormat(served.name, served.receiver.tokenizer))

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        content = await read_json(request, self.settings.max_body_bytes, self.settings.body_seconds)
        return kind.model_validate(content)

    async def _answer(
        self,
        request: Request,
        body: AnswerBody,
        served: ServedModel,
        prepare: Callable[[], list[PreparedPrompt]],
        answer_format: AnswerFormat,
    ) -> Response:
        prompts = await asyncio.get_running_loop().run_in_executor(self._encoding, prepare)
        pending = PendingAnswers(prompts, body, self.settings)
        self.engine.submit(served, pending.rows)
        if body.stream:
            events = self._events(pending, answer_format, body.wants_usage_chunk)
            limit = self.settings.time_limit + self.settings.body_seconds
            return EventStream(events, lambda: self._close(served, pending), limit)
        try:
            await _unless_disconnected(pending.finished(), request)
            return JSONResponse(answer_format.whole(pending.rows))
        finally:
            self._close(served, pending)

    async def _events(
        self, pending: PendingAnswers, answer_format: AnswerFormat, has_usage_chunk: bool
    ) -> AsyncIterator[str]:
        try:
            for row in pending.rows:
                if (chunk := answer_format.start(row)) is not None:
                    yield json.dumps(chunk)
            num_ended = 0
            async for event in pending.events():
                chunk = answer_format.chunk(event, pending.rows[event.row])
                num_ended += event.is_end
                if num_ended == len(pending.rows) and not has_usage_chunk:
                    chunk["usage"] = answer_format.usage_chunk(pending.rows)["usage"]
                yield json.dumps(chunk)
            if has_usage_chunk:
                yield json.dumps(answer_format.usage_chunk(pending.rows))
        except Exception as error:
            yield json.dumps(api_error(error).body)
        yield "[DONE]"

    def _close(self, served: ServedModel, pending: PendingAnswers) -> None:
        """Free the places of answers that have not ended, and count all."""
        self.engine.cancel([row for row in pending.rows if not row.is_done])
        for row in pending.rows:
            self.metrics.count(served.name, row)

    def shut_down(self, seconds: float) -> None:
        """Refuse requests, and give running answers some seconds to end."""
        self.engine.shut_down(seconds)

    def health(self) -> dict[str, Any]:
        """State of the server; 503 once it is shutting down."""
        if self.engine.waiting.is_closed:
            raise ApiError(503, "The server is shutting down.", "shutting_down")
        return {"status": "ok", "waiting": len(self.engine.waiting), "running": self.engine.num_running}


async def _unless_disconnected(answers: Any, request: Request) -> None:
    """Wait for answers; ApiError 499 where the client leaves first."""
    tasks = [asyncio.ensure_future(answers), asyncio.ensure_future(disconnected(request.receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ApiError(499, "The client has closed the connection.")
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def create_app(catalogue: ModelCatalogue, settings: ServerSettings | None = None) -> FastAPI:
    """The ASGI app of a server; its `state.server` is the `AnswerServer`.

    Args:
        catalogue: the models.
        settings: limits and defaults.
    """
    server = AnswerServer(catalogue, settings or ServerSettings())
    created = int(time.time())
    # The documentation pages of FastAPI load scripts from elsewhere.
    app = FastAPI(title="c2c_lightning", lifespan=server.lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_api_route("/v1/chat/completions", server.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/completions", server.text, methods=["POST"], response_model=None)
    app.add_api_route("/health", server.health)
    app.add_api_route("/v1/models", lambda: model_list(catalogue, created))
    app.add_api_route("/v1/models/{name:path}", lambda name: model_object(catalogue, name, created))
    app.add_api_route("/metrics", lambda: Response(server.metrics.text(), media_type="text/plain; version=0.0.4"))
    add_page(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _http_error)
    app.add_middleware(RequestFrame, metrics=server.metrics, api_key=server.settings.api_key)
    return app


def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    text = f"{request.method} {request.url.path[:200]}: {getattr(error, 'detail', 'the request is not valid')}."
    return ApiError(status, text).response()
