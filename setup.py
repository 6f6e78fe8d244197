"""Ships configs/ and tools/ inside the package, under .mim, as OpenMMLab packages do.

Everything else is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMim(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout's own folders are used
            return
        for folder in ("configs", "tools"):
            shutil.copytree(
                folder,
                Path(self.build_lib, "ghostdet", ".mim", folder),
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )


setup(cmdclass={"build_py": BuildWithMim})
