"""`lightning export` and `lightning convert`: fusers to and from files."""

import logging
from collections.abc import Sequence
from pathlib import Path

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.errors import CheckpointError, FuserFormatError
from c2c_lightning.export.released.convert import convert_released, to_released

logger = logging.getLogger(__name__)


def run_export(args: Sequence[str]) -> None:
    """Write the fuser of a Lightning checkpoint as a fuser directory."""
    parser = CommandParser(prog="lightning export", description=run_export.__doc__)
    parser.add_argument("--ckpt_path", type=str, required=True, help="Lightning checkpoint of `lightning fit`")
    parser.add_argument("--output_dir", type=str, required=True, help="fuser directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace another fuser in output_dir")
    options = parser.options(args[1:])
    if (Path(options.ckpt_path) / "fuser_config.json").is_file():
        raise CheckpointError(f"{options.ckpt_path} is a fuser directory already, which needs no export.")
    from c2c_lightning.export.from_checkpoint import export_checkpoint

    export_checkpoint(Path(options.ckpt_path), Path(options.output_dir), options.overwrite)
    logger.info("fuser written to %s", options.output_dir)


def run_convert(args: Sequence[str]) -> None:
    """Convert the authors' published layout to a fuser directory, or back."""
    parser = CommandParser(prog="lightning convert", description=run_convert.__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="one directory for each sharer, or a fuser directory")
    parser.add_argument("--output_dir", type=str, required=True, help="directory to write")
    parser.add_argument("--to", choices=["ours", "released"], default="ours", help="which layout to write")
    parser.add_argument("--overwrite", action="store_true", help="replace another fuser in output_dir (--to ours)")
    parser.add_argument("--receiver", help="the receiver; default what the input names")
    parser.add_argument("--sharers", nargs="+", help="the sharers; default what the input names")
    options = parser.options(args[1:])
    if options.to == "released":
        if len(options.input) != 1:
            raise FuserFormatError("--to released takes one fuser directory as --input.")
        to_released(options.input[0], options.output_dir)
    else:
        convert_released(options.input, options.output_dir, options.receiver, options.sharers, options.overwrite)
    logger.info("written to %s", options.output_dir)
