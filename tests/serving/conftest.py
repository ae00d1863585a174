from collections.abc import Iterator

import pytest
from openai import OpenAI

from c2c_lightning.serving.http_server import HTTPServer
from tests.serving.served import catalogue, running


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    """One server for the tests of a module."""
    with running(catalogue()) as started:
        yield started


@pytest.fixture
def client(server: HTTPServer) -> Iterator[OpenAI]:
    """The real client."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
