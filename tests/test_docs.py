"""README and docs: links, paths, commands, Python examples and error messages are those of this version."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from c2c_lightning import errors
from c2c_lightning.cli import COMMANDS
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").rglob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
IMAGES = ROOT / "docs" / "images"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def python_blocks(page: Path) -> list[str]:
    return [code for language, code in BLOCK.findall(page.read_text(encoding="utf-8")) if language == "python"]


# The client on the page about serving needs a running server; `tests/serving` has such a client.
WITH_PYTHON = [page for page in PAGES if python_blocks(page) and page.name != "serving.md"]


@pages
def test_links_and_configurations_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text) if "://" not in link}
    assert not [link for link in links if not (page.parent / link).exists()]
    configs = set(re.findall(r"configs/[a-z0-9_./-]+\.yaml", text))
    assert not [config for config in configs if not (ROOT / config).exists()]


def anchors(page: Path) -> set[str]:
    """Those of GitHub and MyST: headings in lower case, without punctuation, joined by hyphens."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pages
def test_anchors_of_links_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8"))
    assert not [(file, name) for file, name in links if name not in anchors(page.parent / file if file else page)]


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
    named = set(re.findall(r"(?:^|`|&& |\$ )lightning ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= set(COMMANDS)


@pages
def test_names_that_examples_import_exist(page: Path) -> None:
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.fixture(scope="module")
def fuser(tmp_path_factory: pytest.TempPathFactory) -> C2CModel:
    """An untrained fuser of the embedded pair, in place of that of the quickstart."""
    receiver, sharer = load_frozen("embedded:receiver"), load_frozen("embedded:sharer")
    config = FuserConfig(hidden_dim=8, intermediate_dim=8, token_alignment="span")
    return C2CModel(receiver, [sharer], config).eval()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(page: Path, fuser: C2CModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order, in one namespace that has a `model` and an encoded `prompt`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    fuser.save_pretrained("runs/quickstart/fuser")
    prompt = fuser.encode([[{"role": "user", "content": "What is the capital of Nepi?"}]])
    namespace: dict[str, object] = {"__name__": "example", "model": fuser, "prompt": prompt}
    for number, block in enumerate(python_blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


def test_the_glossary_names_what_exists() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "c2c_lightning").rglob("*.py"))
    named = {
        name for cell in re.findall(r"\| ([^|]*) \|$", text, re.MULTILINE) for name in re.findall(r"`([A-Z]\w+)", cell)
    }
    assert named
    assert not [name for name in named if not re.search(rf"^(class {name}\b|{name} = )", source, re.MULTILINE)]


def test_pictures_show_what_the_script_draws(tmp_path: Path) -> None:
    """The texts in the pictures are compared: tokens, layers and numbers come from the package."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.main(tmp_path)
    drawn, shown = ({path.name: texts_of(path) for path in folder.glob("*.svg")} for folder in (tmp_path, IMAGES))
    assert drawn == shown
    assert all(drawn.values())


def texts_of(picture: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text(encoding="utf-8"))


def messages_of_the_package() -> list[str]:
    """All texts in the source, without backquotes, `…` for each inserted value."""
    found = []
    for path in (ROOT / "c2c_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)).replace("`", ""))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value.replace("`", ""))
    return found


def troubles() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \| .* \| `(\w+Error)` \|$", text, re.MULTILINE)


def test_every_class_of_errors_has_a_message_in_troubleshooting() -> None:
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.C2CError)
    }
    assert {name for _, name in troubles()} == classes - {"C2CError"}


def test_messages_in_troubleshooting_are_those_of_the_package() -> None:
    known = messages_of_the_package()
    patterns = [".*".join(re.escape(part.strip()) for part in message.split("…")) for message, _ in troubles()]
    assert not [pattern for pattern in patterns if not any(re.search(pattern, text, re.DOTALL) for text in known)]


def test_the_configuration_on_the_page_is_that_of_the_examples() -> None:
    page = (ROOT / "docs" / "your_pair.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "examples" / "pair.yaml").read_text(encoding="utf-8") in page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
