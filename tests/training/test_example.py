"""The example in the docstring of `C2CModule` runs, with a plain Trainer; the method is imported without Lightning."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import c2c_lightning
from c2c_lightning.training import module


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    examples = doctest.DocTestFinder(recurse=False).find(module.C2CModule, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    results = [runner.run(example) for example in examples]
    assert results
    assert all(result.attempted > 5 and not result.failed for result in results)


def test_every_public_name_is_found() -> None:
    assert {"C2CModule", "InstructionDataModule", "C2CModel", "FuserConfig", "LMSpec"} <= set(c2c_lightning.__all__)
    assert all(getattr(c2c_lightning, name).__doc__ for name in c2c_lightning.__all__)
    assert set(c2c_lightning.__all__) <= set(dir(c2c_lightning))
    with pytest.raises(AttributeError, match="NoSuchName"):
        c2c_lightning.NoSuchName  # noqa: B018


def test_the_method_is_imported_without_lightning() -> None:
    code = "import sys, c2c_lightning; print(sum(name.split('.')[0] == 'lightning' for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0"]
