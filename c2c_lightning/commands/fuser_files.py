"""`lightning export` and `lightning convert`: fusers to and from files."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.errors import CheckpointError, FuserFormatError
from c2c_lightning.export.released.convert import convert_released, to_released

logger = logging.getLogger(__name__)


def run_export(args: Sequence[str]) -> None:
    """Write the fuser of a Lightning checkpoint as a fuser directory, add results to its card, and upload it.

    An existing fuser directory is named by --fuser instead of --ckpt_path and --output_dir. The hub's access token is
    that of `hf auth login` or of the environment variable HF_TOKEN.
    """
    parser = CommandParser(prog="lightning export", description=run_export.__doc__)
    parser.add_argument("--ckpt_path", type=str | None, help="Lightning checkpoint of `lightning fit`")
    parser.add_argument("--output_dir", type=str | None, help="fuser directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace another fuser in output_dir")
    parser.add_argument("--fuser", type=str | None, help="an existing fuser directory, for --report and --push")
    parser.add_argument(
        "--prune",
        choices=["closed", "measured"],
        help="remove layers: those with closed gates (no loss), or also those that measure worst on --rows",
    )
    parser.add_argument(
        "--drop_layers",
        type=str | None,
        help="remove these layers: 3,5 (with several sharers 0:3,1:5), or layers.json of `lightning analyze layers`",
    )
    parser.add_argument(
        "--rows", type=str | None, help="conversations that accuracy is measured on, where layers are removed"
    )
    parser.add_argument("--keep", type=int | None, help="largest number of layers that --prune measured keeps")
    parser.add_argument("--report", type=str | None, help="report.json of `lightning test`, for the card")
    parser.add_argument("--push", type=str | None, metavar="OWNER/NAME", help="upload to this repository of the hub")
    parser.add_argument("--private", action="store_true", help="a repository that --push creates is private")
    parser.add_argument("--revision", type=str | None, help="branch of the hub to push to, created if needed")
    options = parser.options(args[1:])
    _check_export(options)
    from c2c_lightning.export.format import CARD_NAME
    from c2c_lightning.export.from_checkpoint import export_checkpoint
    from c2c_lightning.export.hub import push_directory
    from c2c_lightning.export.results_card import write_results_card

    directory = Path(options.output_dir or options.fuser)
    if options.prune is not None or options.drop_layers is not None:
        from c2c_lightning.commands.prune_fuser import Pruning, load_for_pruning, prune

        model = load_for_pruning(options.ckpt_path, options.fuser)
        pruning = Pruning(options.prune, options.drop_layers, options.rows, options.keep)
        prune(model, pruning, directory, options.overwrite)
        logger.info("fuser written to %s", directory)
    elif options.ckpt_path is not None:
        export_checkpoint(Path(options.ckpt_path), directory, options.overwrite)
        logger.info("fuser written to %s", directory)
    if options.report is not None:
        write_results_card(directory, options.report)
        logger.info("results written to %s", directory / CARD_NAME)
    if options.push is not None:
        push_directory(directory, options.push, options.private or None, options.revision)


def _check_export(options: Any) -> None:
    """Refuse options that do not belong together, before anything is written.

    Raises:
        ArgumentError: neither a checkpoint nor a fuser, or options without the one that they belong to.
        CheckpointError: a fuser directory in place of a checkpoint.
    """
    if (options.ckpt_path is None) == (options.fuser is None):
        raise ArgumentError(None, "give either --ckpt_path (a checkpoint) or --fuser (an existing fuser directory).")
    is_pruned = options.prune is not None or options.drop_layers is not None
    if options.prune is not None and options.drop_layers is not None:
        raise ArgumentError(None, "give either --prune RULE or --drop_layers LAYERS.")
    if is_pruned and options.output_dir is None:
        raise ArgumentError(None, "--prune and --drop_layers write another fuser: add --output_dir DIR.")
    if not is_pruned and (options.rows is not None or options.keep is not None):
        raise ArgumentError(None, "--rows and --keep belong to --prune.")
    if not is_pruned and (options.ckpt_path is None) != (options.output_dir is None):
        raise ArgumentError(None, "--ckpt_path and --output_dir belong together; --fuser needs neither.")
    if options.prune == "measured" and options.rows is None:
        raise ArgumentError(None, "--prune measured needs --rows FILE, the conversations that layers are measured on.")
    if options.prune != "measured" and options.keep is not None:
        raise ArgumentError(None, "--keep belongs to --prune measured.")
    if options.push is None and (options.private or options.revision is not None):
        raise ArgumentError(None, "--private and --revision belong to --push OWNER/NAME.")
    if options.fuser is not None and options.push is None and options.report is None and not is_pruned:
        raise ArgumentError(None, "--fuser is exported already: add --report FILE, --push OWNER/NAME or --prune RULE.")
    if options.ckpt_path is not None and (Path(options.ckpt_path) / "fuser_config.json").is_file():
        raise CheckpointError(
            f"{options.ckpt_path} is a fuser directory already, which needs no export. To add results or upload it: "
            f"lightning export --fuser {options.ckpt_path} --report FILE --push OWNER/NAME"
        )


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
