"""`lightning sharer`: a sharer for receivers in other processes or on other machines."""

import logging
import os
from collections.abc import Sequence

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from c2c_lightning.channel.sharer_link import KEY_VARIABLE
from c2c_lightning.commands.parsing import CommandParser, HelpFormatter
from c2c_lightning.errors import MissingExtraError
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  lightning sharer --model Qwen/Qwen2.5-0.5B-Instruct --port 8100
  lightning chat --fuser DIR --sharers http://127.0.0.1:8100
  lightning serve --fuser DIR --sharers http://127.0.0.1:8100"""


def run_sharer(args: Sequence[str]) -> None:
    """Hold a sharer and send its cache entries to receivers in other processes (see docs/serving.md)."""
    options = _parser().options(args[1:])
    try:
        from c2c_lightning.serving.http_server import HTTPServer, reserve_address
        from c2c_lightning.serving.server_settings import ServerSettings
        from c2c_lightning.serving.sharer_app import create_sharer_app
        from c2c_lightning.serving.waiting_rows import QueueLimits
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'c2c-lightning[serve]'") from error
    address = reserve_address(options.host, options.port)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    spec = LMSpec(options.model, options.revision, options.dtype)
    key = options.key or os.environ.get(KEY_VARIABLE) or None
    settings = ServerSettings(
        api_key=key,
        max_body_bytes=options.max_body_mib * 2**20,
        queue=QueueLimits(max_waiting=options.max_waiting),
    )
    app = create_sharer_app(load_frozen(spec, device), settings, options.max_answer_mib * 2**20)
    server = HTTPServer(app, address)
    if options.host not in ("127.0.0.1", "localhost", "::1") and key is None:
        logger.warning("the sharer is open to the network and has no key: set %s", KEY_VARIABLE)
    logger.info("sharer %s at %s (Ctrl-C stops)", options.model, server.url)
    server.run_forever()


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning sharer", description=run_sharer.__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("--model", type=str, required=True, help="local directory, hub id or embedded:NAME")
    add("--revision", help="hub revision of the model")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="type of its weights")
    add("--device", help="where to run; default cuda if there is one")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    add("--port", type=NonNegativeInt, default=8100, help="port; 0 for a free one")
    add("--key", help=f"key that receivers must send; better set as environment variable {KEY_VARIABLE} on both sides")
    add("--max_waiting", type=PositiveInt, default=64, help="requests that may wait; more are refused with 429")
    add("--max_body_mib", type=PositiveInt, default=64, help="largest request, in MiB")
    add("--max_answer_mib", type=PositiveInt, default=1024, help="largest cache that is sent, in MiB")
    return parser
