"""Ends the answers of a request from outside: the client has left, its time is over, the server stops."""

import time
from typing import Literal

EndedBy = Literal["client", "time_limit", "shutdown"]
"""Who ended an answer before its own end."""


class RequestControl:
    """Shared by all answers of a request and read by the inference thread after each token.

    Attributes:
        deadline: end of the request's time, on the monotonic clock.
        ended_by: set to end its answers at their next token.
    """

    def __init__(self, time_limit: float) -> None:
        """Allow a number of seconds from now."""
        self.deadline = time.monotonic() + time_limit
        self.ended_by: EndedBy | None = None
        self._deadline_reason: EndedBy = "time_limit"

    def cancel(self, ended_by: EndedBy = "client") -> None:
        """End all answers at their next token."""
        self.ended_by = self.ended_by or ended_by

    def shorten(self, seconds: float) -> None:
        """The server stops: answers that have not ended after some seconds are ended."""
        self.deadline, self._deadline_reason = min(self.deadline, time.monotonic() + seconds), "shutdown"

    @property
    def must_end(self) -> bool:
        """Whether its answers end at their next token."""
        if self.ended_by is None and time.monotonic() > self.deadline:
            self.ended_by = self._deadline_reason
        return self.ended_by is not None
