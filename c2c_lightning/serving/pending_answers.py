"""The answers of one request between the inference threads and the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from c2c_lightning.serving.answer_row import AnswerRow, RowEvent
from c2c_lightning.serving.api_requests import AnswerBody
from c2c_lightning.serving.prepared_prompt import PreparedPrompt
from c2c_lightning.serving.request_control import RequestControl
from c2c_lightning.serving.server_settings import ServerSettings


class PendingAnswers:
    """Rows of a request; their events arrive in an asyncio queue.

    Attributes:
        rows: the answers, `n` for each prompt.
    """

    def __init__(self, prompts: Sequence[PreparedPrompt], body: AnswerBody, settings: ServerSettings) -> None:
        """Make the rows, in a coroutine of the event loop that will read the events."""
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[RowEvent]()
        self._is_streamed, control = body.stream, RequestControl(settings.time_limit)
        self.rows = [
            AnswerRow(
                prompt,
                body.settings(min(body.wanted_tokens() or settings.max_tokens, settings.max_tokens, prompt.room)),
                control,
                self._listen,
                number * (body.n or 1) + copy,
                body.c2c.detail,
            )
            for number, prompt in enumerate(prompts)
            for copy in range(body.n or 1)
        ]

    def _listen(self, event: RowEvent) -> None:
        """Called by the inference thread."""
        if self._is_streamed or event.is_end:
            with suppress(RuntimeError):  # the event loop is closed, and with it the connection
                self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def events(self) -> AsyncIterator[RowEvent]:
        """All events, until every answer has ended.

        Raises:
            Exception: an answer failed.
        """
        open_rows = len(self.rows)
        while open_rows:
            event = await self._queue.get()
            error = self.rows[event.row].error
            if error is not None:
                raise error
            open_rows -= event.is_end
            yield event

    async def finished(self) -> None:
        """Wait until every answer has ended; raises as `events`."""
        async for _ in self.events():
            pass
