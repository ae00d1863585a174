"""`lightning doctor`: what is installed, and which package owns the command."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from c2c_lightning.cli import main
from c2c_lightning.commands import doctor_sections
from c2c_lightning.commands.doctor_sections import Caches, Devices, Extras, Program, imported_module, missing

OURS = "#!/usr/bin/python\nimport re\nimport sys\nfrom c2c_lightning.cli import main\nsys.exit(main())\n"
THEIRS = "#!/usr/bin/python\n# -*- coding: utf-8 -*-\nimport sys\nfrom lightning_sdk.cli.entrypoint import main_cli\n"


def script(folder: Path, text: str) -> Path:
    """A console script `lightning`."""
    path = folder / "lightning"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_report_has_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    text = capsys.readouterr().out
    for part in ("Versions", f"torch {version('torch')}", "Devices", "cpu", "Extras", "Caches", "hub", "Program"):
        assert " ".join(part.split()) in " ".join(text.split())


def test_the_report_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {finding["name"] for finding in report["Versions"]} >= {"python", "torch", "lightning", "transformers"}


@pytest.mark.parametrize(("text", "module"), [(OURS, "c2c_lightning.cli"), (THEIRS, "lightning_sdk.cli.entrypoint")])
def test_a_script_names_its_package(text: str, module: str, tmp_path: Path) -> None:
    assert imported_module(script(tmp_path, text)) == module


def test_a_script_of_this_program_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script(tmp_path, OURS).parent))
    (finding,) = Program().findings()
    assert not finding.is_problem
    assert "is this program" in finding.text


def test_a_script_of_another_package_is_a_problem_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{script(tmp_path, THEIRS).parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert exit_.value.code == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "belongs to lightning_sdk" in text
    assert "python -m c2c_lightning" in text


def test_no_script_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = Program().findings()
    assert "not on the PATH" in finding.text


def test_a_missing_extra_is_named_with_its_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_wandb(name: str) -> str:
        if name == "wandb":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor_sections, "version", no_wandb)
    (finding,) = [finding for finding in Extras().findings() if finding.name == "wandb"]
    assert finding.text == "wandb not installed: pip install 'c2c-lightning[wandb]'"
    assert not finding.is_problem
    main(["doctor"])
    assert "pip install 'c2c-lightning[wandb]'" in capsys.readouterr().out


def test_an_unsuitable_version_is_named() -> None:
    assert missing(Requirement("torch>=2.0")) == ""
    assert missing(Requirement("torch>=99")) == f"{version('torch')} is installed, needed is >=99"
    assert missing(Requirement("no-such-package")) == "not installed"


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    findings = {finding.name: finding for finding in Caches().findings()}
    assert findings["models"].is_problem
    assert "HF_HOME" in findings["models"].text


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    texts = [finding.text for finding in Caches().findings()]
    assert any("a token is set" in text for text in texts)
    assert not any("hf_secret" in text for text in texts)


def test_the_devices_of_this_machine() -> None:
    assert next(Devices().findings()).name == "cpu"
