"""Runs an app with uvicorn until a signal; running answers end before the process does."""

import logging
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from c2c_lightning.errors import ConfigurationError

logger = logging.getLogger(__name__)

#: Seconds after the answers' own end in which their last bytes are sent.
SEND_SECONDS = 2.0


class HTTPServer(uvicorn.Server):
    """A uvicorn server that tells the engine of a signal at once, so that running answers end in time.

    Args:
        app: from `create_app`.
        address: from `reserve_address`; default a free port of this machine alone.
        log_level: of uvicorn.
    """

    def __init__(self, app: FastAPI, address: socket.socket | None = None, log_level: str = "warning") -> None:
        self.answer_server = app.state.server
        seconds = self.answer_server.settings.shutdown_seconds
        super().__init__(
            uvicorn.Config(
                app,
                log_level=log_level,
                timeout_graceful_shutdown=int(seconds + SEND_SECONDS),
                timeout_keep_alive=5,
                server_header=False,
                # Colours and progress belong to the terminal; logging is configured by the command.
                log_config=None,
            )
        )
        self.socket = address or reserve_address("127.0.0.1", 0)
        self.socket.listen(2048)
        host, port = self.socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """After a signal: no more requests, waiting ones are refused, running ones get `shutdown_seconds` to end."""
        seconds = self.answer_server.settings.shutdown_seconds
        logger.info("stopping: running answers have %g seconds", seconds)
        self.answer_server.shut_down(seconds)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but the signal is not raised again after the end: a server that was asked to stop succeeds."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    def stop(self) -> None:
        """Stop as after a signal: for a server in a thread."""
        self.should_exit = True

    def run_forever(self) -> None:
        """Serve until a signal or `stop`."""
        self.run(sockets=[self.socket])


def reserve_address(host: str, port: int) -> socket.socket:
    """A socket bound to an address, for use before models are loaded; it refuses connections until a server listens.

    Args:
        host: address to listen on.
        port: port; 0 for a free one.

    Raises:
        ConfigurationError: the port is in use, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error}. Choose another --port or --host."
        ) from error
    return listening
