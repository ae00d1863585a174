"""A server of tiny models in a thread, on a free port of the loopback."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from fastapi import FastAPI

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.registry import T2T
from c2c_lightning.serving.app import create_app
from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.server_settings import ServerSettings
from tests.tiny import tiny_pair

MESSAGE = T2T(message_prompt="Say: {question}", message_max_new_tokens=6)


def fused_model(num_sharers: int = 1, **choices: Any) -> C2CModel:
    """A tiny fused pair of two tokenizers, all gates open."""
    config = FuserConfig(
        hidden_dim=16, intermediate_dim=16, dropout=0.0, gate_init=1.0, token_alignment="span", **choices
    )
    sharers = [load_frozen(tiny_pair("llama", 1 + n, "header")) for n in range(num_sharers)]
    torch.manual_seed(3)
    return C2CModel(load_frozen(tiny_pair("qwen3", 0)), sharers, config).eval()


def endless_model() -> C2CModel:
    """A fused pair whose answers end by their length only."""
    model = fused_model()
    for lm in (model.receiver, *model.sharers):
        lm.model.generation_config.eos_token_id = None
    return model


def catalogue(model: C2CModel | None = None, prefix_bytes: int = 2**26) -> ModelCatalogue:
    """Receiver, sharers, text-to-text and the fused pair."""
    return ModelCatalogue({"pair": model or fused_model()}, PrefixCache(prefix_bytes), MESSAGE)


def running(models: ModelCatalogue, settings: ServerSettings | None = None) -> AbstractContextManager[HTTPServer]:
    """A server of some models in a thread; it has ended when the context does."""
    return running_app(create_app(models, settings))


@contextmanager
def running_app(app: FastAPI) -> Iterator[HTTPServer]:
    """A server of an app in a thread; it has ended when the context does."""
    server = HTTPServer(app)
    thread = threading.Thread(target=server.run_forever, name="http")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def ask(text: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)
