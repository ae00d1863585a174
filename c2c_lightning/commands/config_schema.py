"""`lightning config schema`: a JSON schema of a command's configuration, by which editors complete and check YAML."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2c_lightning.commands.new_file import write_new
from c2c_lightning.commands.parsing import CommandParser, HelpFormatter
from c2c_lightning.commands.run_classes import RUN_COMMANDS

ABOUT = """\
Print a JSON schema of a command's configuration. Editors with a YAML language server use it after a first line such as
  # yaml-language-server: $schema=fit.schema.json"""

#: A class by its path, where jsonargparse describes less than it accepts.
_CLASS = {
    "type": "object",
    "properties": {
        "class_path": {"type": "string"},
        "init_args": {"type": "object"},
        "dict_kwargs": {"type": "object"},
    },
    "required": ["class_path"],
    "additionalProperties": False,
}
_NAMED_CLASS = {"anyOf": [{"type": "string"}, _CLASS]}
_CALLBACKS = {"anyOf": [{"type": "null"}, _NAMED_CLASS, {"type": "array", "items": _NAMED_CLASS}]}
# jsonargparse 4.53 fails at a metaclass among the arguments of Lightning's pruning callback, and at the optimizer class
# that Lightning makes at run time.
_REPLACED = ("trainer.callbacks", "model.optimizer")
_FILE = {"type": "string", "pattern": r"\.(ya?ml|json)$", "description": "a file with the options of this group"}


def write_schema(args: Sequence[str]) -> None:
    """Print the schema, or write it into a file."""
    parser = CommandParser(prog="lightning config schema", description=ABOUT, formatter_class=HelpFormatter)
    parser.add_argument("of", nargs="?", default="fit", choices=list(RUN_COMMANDS), help="command; default fit")
    parser.add_argument("--output", help="file to write instead")
    options = parser.options(args)
    text = json.dumps(config_schema(options.of), indent=1) + "\n"
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_new(Path(options.output), text)


def config_schema(command: str) -> dict[str, Any]:
    """The schema of whole configurations and of overlays, in which nothing is required."""
    from c2c_lightning.commands.trainer_cli import run_parser

    parser = run_parser(command)
    for action in list(parser._actions):
        if action.dest in _REPLACED:
            parser._remove_action(action)
    schema: dict[str, Any] = json.loads(parser.get_completion_script("jsonschema"))
    schema.pop("required", None)
    groups = schema["properties"]
    groups["trainer"]["properties"]["callbacks"] = _CALLBACKS
    if command in ("fit", "validate"):
        groups["model"]["properties"]["optimizer"] = _NAMED_CLASS
    for key in ("model", "data", "trainer"):
        groups[key].pop("required", None)
        groups[key] = {"anyOf": [groups[key], _FILE]}
    return schema
