"""`lightning serve`: the HTTP server of fused pairs."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.errors import MissingExtraError
from c2c_lightning.responders.prompt_texts import TEXT_3, fill
from c2c_lightning.responders.registry import T2T

logger = logging.getLogger(__name__)

KEY_VARIABLE = "C2C_API_KEY"
EXAMPLES = """\
examples:
  lightning serve --fuser runs/quickstart/fuser
  lightning serve --fuser small=runs/small/fuser --fuser large=runs/large/fuser --port 8080
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "c2c", "messages": [{"role": "user", "content": "Hello"}]}'"""


def run_serve(args: Sequence[str]) -> None:
    """Serve receiver, sharers, text-to-text and fused pairs over OpenAI's HTTP API."""
    options = _parser().options(args[1:])
    fill(options.message_prompt, question="")  # a wrong placeholder is an error before models are loaded
    try:
        from c2c_lightning.serving.app import create_app
        from c2c_lightning.serving.http_server import HTTPServer, reserve_address
        from c2c_lightning.serving.model_catalogue import ModelCatalogue, load_fusers
        from c2c_lightning.serving.prefix_cache import PrefixCache
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'c2c-lightning[serve]'") from error
    address = reserve_address(options.host, options.port)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    fused = load_fusers(options.fuser, options.receiver, options.sharers, options.dtype, device)
    message = T2T(options.message_prompt, options.message_max_new_tokens)
    catalogue = ModelCatalogue(fused, PrefixCache(options.prefix_cache_mib * 2**20), message)
    server = HTTPServer(create_app(catalogue, _settings(options)), address)
    if options.host not in ("127.0.0.1", "localhost", "::1") and not _api_key(options):
        logger.warning("the server is open to the network and has no --api_key")
    logger.info("models: %s", ", ".join(catalogue.models))
    logger.info("serving on %s (page at /, API at /v1; Ctrl-C stops)", server.url)
    server.run_forever()


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning serve", description=run_serve.__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--fuser", action="append", type=str, required=True, help="fuser directory, hub id or checkpoint; NAME=FUSER")
    add("--receiver", help="another copy of the receiver; default the one that the fuser names")
    add("--sharers", nargs="+", help="other copies of the sharers")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], help="type of the frozen models")
    add("--device", help="where to run; default cuda if there is one")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    add("--port", type=NonNegativeInt, default=8000, help="port; 0 for a free one")
    add("--api_key", help=f"key that clients must send; better set as environment variable {KEY_VARIABLE}")
    add("--max_tokens", type=PositiveInt, default=1024, help="longest answer, in tokens")
    add("--time_limit", type=PositiveFloat, default=300.0, help="longest answer, in seconds, its wait included")
    add("--max_body_mib", type=PositiveInt, default=4, help="largest request, in MiB")
    add("--max_waiting", type=PositiveInt, default=256, help="answers that may wait; more are refused with 429")
    add("--max_batch", type=PositiveInt, default=32, help="answers in one batch")
    add("--max_batch_tokens", type=PositiveInt, default=65536, help="tokens of one batch, prompts and answers")
    add("--batch_window_ms", type=NonNegativeInt, default=5, help="how long a request waits for others to join it")
    add("--num_batches", type=PositiveInt, default=4, help="batches that run at once, in turns token by token")
    add("--prefix_cache_mib", type=NonNegativeInt, default=512, help="memory for caches of growing chats; 0: none")
    add("--message_prompt", default=TEXT_3, help="what text-to-text asks the sharer for, with {question}")
    add("--message_max_new_tokens", type=PositiveInt, default=256, help="longest message of text-to-text")
    return parser


def _api_key(options: Any) -> str | None:
    return options.api_key or os.environ.get(KEY_VARIABLE) or None


def _settings(options: Any) -> Any:
    from c2c_lightning.serving.server_settings import ServerSettings
    from c2c_lightning.serving.waiting_rows import QueueLimits

    window = options.batch_window_ms / 1000
    queue = QueueLimits(options.max_waiting, options.max_batch, options.max_batch_tokens, window)
    return ServerSettings(
        api_key=_api_key(options),
        max_tokens=options.max_tokens,
        time_limit=options.time_limit,
        max_body_bytes=options.max_body_mib * 2**20,
        num_threads=options.num_batches,
        queue=queue,
    )
