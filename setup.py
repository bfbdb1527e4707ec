"""Packs what stands at the top level of the repository, and is needed at run time, into `app`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("schema.sql", "gunicorn.conf.py")
"""`app/shipped.py` finds them, there and in a checkout."""


class BuildWithShippedFiles(build_py):
    """Builds the package with a copy of the shipped files in it."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):  # an editable install runs the checkout
            for name in SHIPPED:
                self.copy_file(name, str(Path(self.build_lib) / "app" / name))


setup(cmdclass={"build_py": BuildWithShippedFiles})
