"""Imports that find a plugin's folder by accident are refused in a trial.

The server's current folder is on `sys.path`, so `from plugins.x.main import …` works where the
plugins lie below it; but such a module is no part of a generation and never follows an edit.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_OWN_PACKAGE = __name__.partition(".")[0]


class ImportGuard(importlib.abc.MetaPathFinder):
    """Finds what the path finder finds, unless it lies in the plugins' root."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Make it for a plugin's folder in the plugins' root."""
        self._root = os.path.realpath(root)
        self._folder = os.path.realpath(folder)
        # An environment below the root is none of the plugins.
        self._spared = [
            prefix
            for prefix in map(os.path.realpath, {sys.prefix, sys.base_prefix})
            if _lies_in(prefix, self._root)
        ]

    def install(self) -> None:
        """Go before the path finder, for the rest of this process."""
        finders: list[object] = list(sys.meta_path)
        path_finder = importlib.machinery.PathFinder
        at = finders.index(path_finder) if path_finder in finders else len(finders)
        sys.meta_path.insert(at, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a module's spec.

        Raises:
            ImportError: the module is a plugin's file; the message says what to write instead.
        """
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or fullname.partition(".")[0] == _OWN_PACKAGE:
            return spec
        if spec.origin is not None:
            place = os.path.realpath(spec.origin)
            if self._is_plugins(place):
                raise ImportError(self._refusal(fullname, place), name=fullname)
            return spec
        # Folders without __init__.py, perhaps several under one name. The root holds no code, and
        # what is found in the plugin's own folder is refused with its whole name.
        places = [os.path.realpath(place) for place in spec.submodule_search_locations or ()]
        if places and all(
            self._is_plugins(place) and place != self._root and not _lies_in(place, self._folder)
            for place in places
        ):
            raise ImportError(self._refusal(fullname, places[0]), name=fullname)
        return spec

    def _is_plugins(self, place: str) -> bool:
        return _lies_in(place, self._root) and not any(
            _lies_in(place, prefix) for prefix in self._spared
        )

    def _refusal(self, fullname: str, place: str) -> str:
        text = f"{fullname} is {place}, found by accident, and an edit of it would not be followed"
        if _lies_in(place, self._folder):
            inner = Path(place).relative_to(self._folder).with_suffix("")
            module = "." + ".".join(part for part in inner.parts if part != "__init__")
            return f"{text}; a plugin's own modules are relative: write 'from {module} import …'"
        return (
            f"{text}; a plugin's own modules are relative ('from .main import …'), and what it "
            "shares with another plugin belongs into a package that is installed"
        )


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
