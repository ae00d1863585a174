"""Texts of a package: those of validation questions are left out."""

import json
from pathlib import Path

import pytest

from tests.tools.real_models.test_real_models import wheel
from tools.real_texts import __main__ as command

FILES = {"combined": ["one", "two", "three", "two"], "dev": ["four"], "test": ["three"]}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small package."""
    monkeypatch.setattr(command, "_PACKAGE", "texts==1.0")
    rows = {
        f"{command._FOLDER}/{name}.jsonl": "".join(json.dumps({"passage": text}) + "\n" for text in passages).encode()
        for name, passages in FILES.items()
    }
    wheel(tmp_path, "texts", rows)
    return tmp_path


def test_the_passages_of_training_questions_are_written_once(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = wheels / "texts.jsonl"
    arguments = ["--out", str(out), "--wheels", str(wheels)]
    assert command.main(arguments) == 0
    assert [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()] == ["one", "two"]
    assert "CC BY-SA" in capsys.readouterr().out
    out.write_text("mine\n", encoding="utf-8")
    assert command.main(arguments) == 0
    assert out.read_text(encoding="utf-8") == "mine\n"


def test_a_damaged_package_is_named_and_leaves_no_file(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package,) = wheels.glob("*.whl")
    package.write_bytes(b"no archive")
    assert command.main(["--out", str(wheels / "texts.jsonl"), "--wheels", str(wheels)]) == 1
    assert str(package) in capsys.readouterr().err
    assert not (wheels / "texts.jsonl").exists()
