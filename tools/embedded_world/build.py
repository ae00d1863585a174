"""Build the embedded models: `python -m tools.embedded_world.build --out DIR`."""

import argparse
import logging
from pathlib import Path
from typing import get_args

import torch

from tools.embedded_world.rows import write_rows
from tools.embedded_world.train_models import KnownFacts, train_peer, train_quarters, train_receiver, train_sharer
from tools.embedded_world.world import THIRDS, make_world

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Build the parts chosen on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    world = make_world(options.world_seed)
    if options.only in (None, "facts"):
        write_rows(world, options.out / "facts")
    if options.only in (None, "receiver"):
        logger.info("receiver: %s", train_receiver(world, options.out / "receiver", options.seed))
    if options.only in (None, "sharer"):
        directory = options.out / _sharer_name(options.facts, options.naive_sharer)
        if "quarter" in options.facts:
            report = train_quarters(world, directory, options.seed, options.facts)
        else:
            report = train_sharer(world, directory, options.seed, options.facts, options.naive_sharer)
        logger.info("%s: %s", directory.name, report)
    if options.only in (None, "peer"):
        directory = options.out / f"peer_{options.third}_third"
        logger.info("%s: %s", directory.name, train_peer(world, directory, options.seed, options.third))


def _sharer_name(facts: str, is_naive: bool) -> str:
    name = "sharer" if facts == "all" else f"sharer_{facts.replace('-', '_')}"
    return f"{name}_naive" if is_naive else name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_world.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the models and the rows of facts")
    parser.add_argument("--only", choices=("receiver", "sharer", "peer", "facts"), help="build only this part")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and examples")
    parser.add_argument("--world-seed", type=int, default=0, help="seed of names and facts")
    parser.add_argument(
        "--facts",
        choices=get_args(KnownFacts),
        default="all",
        help="facts in the sharer's training data",
    )
    parser.add_argument("--third", choices=THIRDS, default="first", help="facts in the peer's training data")
    parser.add_argument("--naive-sharer", action="store_true", help="train the sharer on its replies alone")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; one suits such small models")
    return parser


if __name__ == "__main__":
    main()
