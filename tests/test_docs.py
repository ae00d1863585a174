"""README and docs: links, paths, commands and Python examples are those of this version."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from c2c_lightning.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "configs").rglob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_and_configurations_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link}
    assert not [link for link in links if not (page.parent / link).exists()]
    configs = set(re.findall(r"configs/[a-z0-9_./-]+\.yaml", text))
    assert not [config for config in configs if not (ROOT / config).exists()]


@pages
def test_tests_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [
        path for path in re.findall(r"pytest (?:-m slow )?(tests/[\w/]+\.py)", text) if not (ROOT / path).exists()
    ]
    modules = [name.replace(".", "/") for name in re.findall(r"python -m ((?:benchmarks|tests|tools)[\w.]*)", text)]
    assert not [name for name in modules if not ((ROOT / f"{name}.py").exists() or (ROOT / name).is_dir())]


@pages
def test_commands_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`|&& )lightning ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= set(COMMANDS)


@pages
def test_names_that_examples_import_exist(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_glossary_names_what_exists() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "c2c_lightning").rglob("*.py"))
    named = {
        name for cell in re.findall(r"\| ([^|]*) \|$", text, re.MULTILINE) for name in re.findall(r"`([A-Z]\w+)", cell)
    }
    assert named
    assert not [name for name in named if not re.search(rf"^(class {name}\b|{name} = )", source, re.MULTILINE)]
