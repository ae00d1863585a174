"""What starting the package costs: no heavy module is imported before it is used."""

import ast
import inspect
import json
import subprocess
import sys

import pytest

import c2c_lightning

HEAVY = ["torch", "transformers", "lightning", "datasets", "numpy", "pyarrow"]


def imported_by(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has imported after `code`."""
    code += f"\nimport json, sys; sys.stdout.write('\\n' + json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported_by("import c2c_lightning, c2c_lightning.cli") == set()


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["fti"], ["fit", "--help"], ["config", "list"]], ids=" ".join
)
def test_words_about_the_program_import_nothing_heavy(words: list[str]) -> None:
    code = f"from c2c_lightning.cli import main\ntry: main({words})\nexcept SystemExit: pass"
    assert imported_by(code) == set()


def test_the_method_needs_no_lightning() -> None:
    assert "lightning" not in imported_by("from c2c_lightning import C2CModel")


@pytest.mark.parametrize("name", c2c_lightning.__all__)
def test_an_exported_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(c2c_lightning, name)
    assert value.__name__ == name
    assert value.__module__.startswith("c2c_lightning.")
    assert name in dir(c2c_lightning)


def test_type_checkers_see_the_exported_names() -> None:
    tree = ast.parse(inspect.getsource(c2c_lightning))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(declared) == sorted(c2c_lightning.__all__)
    assert declared == {name: f"c2c_lightning.{module}" for name, module in c2c_lightning._MODULES.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        c2c_lightning.no_such_name  # noqa: B018
