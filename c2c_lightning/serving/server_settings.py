"""Limits and defaults of a server."""

from dataclasses import dataclass, field

from c2c_lightning.serving.waiting_rows import QueueLimits


@dataclass(frozen=True)
class ServerSettings:
    """Limits and defaults of a server.

    Attributes:
        api_key: clients must send it as `Authorization: Bearer KEY`; None lets everybody in.
        max_tokens: longest answer, and its length where a request names none.
        time_limit: seconds after which an answer is ended.
        max_body_bytes: largest body of a request.
        body_seconds: seconds in which a body must have arrived.
        shutdown_seconds: seconds that running answers have to end when the server stops.
        num_threads: batches that run at once.
        queue: sizes of queue and batches.
    """

    api_key: str | None = field(default=None, repr=False)
    max_tokens: int = 1024
    time_limit: float = 300.0
    max_body_bytes: int = 4 * 2**20
    body_seconds: float = 30.0
    shutdown_seconds: float = 5.0
    num_threads: int = 4
    queue: QueueLimits = field(default_factory=QueueLimits)
