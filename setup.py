"""Puts the folder `configs` into the wheel, as `c2c_lightning/configs`. Everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """The package and its configurations; an editable install finds those of the checkout."""

    def run(self) -> None:
        """Copy them beside the modules."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib, "c2c_lightning", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
