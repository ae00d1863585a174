"""The commands that the documentation shows: those of the embedded pair run, those with placeholders are parsed."""

import json
import re
import shlex
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from c2c_lightning.export import load_fuser
from c2c_lightning.export.fuser_tensors import precision_free_checksum
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Measurements of minutes to hours.
MEASURED = {"results.md", "gpu.md"}
# Long-running or interactive, or of another program.
NOT_RUN = re.compile(r"^(make|lightning (serve|sharer|chat --fuser)|python -m (tools|benchmarks))")


def shown(page: Path, language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    lines = (line.removeprefix("$ ").split("   #")[0].strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"(c2c-)?lightning |python -m c2c_lightning", line)]


def arguments(command: str) -> list[str]:
    words = shlex.split(command)
    return words[3:] if words[0] == "python" else words[1:]


def exit_code(words: list[str]) -> int | str | None:
    try:
        main(words)
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder like the repository's, with a fuser and a report in place of those of the quickstart."""
    path = tmp_path_factory.mktemp("work")
    for name in ("configs", "docs"):
        (path / name).symlink_to(ROOT / name)
    config = FuserConfig(hidden_dim=8, intermediate_dim=8, token_alignment="span", gate_init=1.0)
    model = C2CModel(load_frozen("embedded:receiver"), [load_frozen("embedded:sharer")], config).eval()
    fuser = model.save_pretrained(path / "runs" / "quickstart" / "fuser")
    line = {"accuracy": 0.5, "n": 2, "ci95": [0.1, 0.9], "seconds_per_answer": 0.1}
    section = {"mode": "generate", "scoring": "anchored", "n": 2, "responders": {"c2c": line}, "verdict": {"text": ""}}
    run = {"fuser_checksums": [precision_free_checksum(load_fuser(fuser).fuser.state_dict())]}
    report = {"version": 1, "run": run, "benchmarks": {"quickstart": section}}
    (path / "runs" / "quickstart" / "report.json").write_text(json.dumps(report))
    return path


RUN = [(page, shown(page, "bash")) for page in PAGES if page.name not in {*MEASURED, "README.md", "serving.md"}]


@pytest.mark.parametrize(
    ("page", "commands"), [pair for pair in RUN if pair[1]], ids=lambda value: getattr(value, "name", "")
)
def test_commands_of_the_embedded_pair_run(
    page: Path, commands: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    for command in commands:
        if NOT_RUN.match(command):
            continue
        assert not exit_code(arguments(command)), command


PARSED = [
    (page.name, command)
    for page in PAGES
    for language in ("bash", "console")
    for command in shown(page, language)
    if re.match(r"lightning (fit|test|predict|validate) ", command)
]


@pytest.mark.parametrize(("page", "command"), PARSED)
def test_options_of_runs_exist(page: str, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    if "RUN.yaml" in command or "$" in command or "..." in command:
        pytest.skip("a placeholder in place of a configuration")
    if "mine.yaml" in command or "runs/first.yaml" in command or ".help" in command:
        pytest.skip("a configuration that another command writes, or help")
    assert not exit_code([*arguments(command.split(" && ")[0]), "--print_config"])
