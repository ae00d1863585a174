"""The built wheel: the package with its embedded models, without its tools and tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from c2c_lightning import embedded

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_has_the_embedded_models_and_neither_tools_nor_tests(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("c2c_lightning", "tools", "tests", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    command = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", command, str(tmp_path)], cwd=source, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"c2c_lightning"}
    for model in embedded.names():
        assert f"c2c_lightning/embedded/{model}/model.safetensors" in names
        assert f"c2c_lightning/embedded/{model}/chat_template.jinja" in names
    assert "c2c_lightning/embedded/facts/train_chat.jsonl" in names
    assert "c2c_lightning/py.typed" in names
    page = (ROOT / "c2c_lightning" / "serving" / "page").iterdir()
    assert {f"c2c_lightning/serving/page/{path.name}" for path in page} <= set(names)
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert {f"c2c_lightning/{path}" for path in shipped} <= set(names)
