"""The typical use of libraries at module level: `tests/cases/libraries`, a plugin's code each.

A case's docstring names the library as its package is called, and the use. `EDIT` is what an edit
changes. `answer()` is what the library answers for what the module has registered: `EDIT`, or
a list of it. `held()` is how much there is in the library's own registries, where it has such;
`cleanup()` what a plugin of its kind has to do at its end.
"""

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.cases import edited
from tests.support.checkout import CHECKOUT

FOLDER = CHECKOUT / "tests" / "cases" / "libraries"

_REST = """

# --- what makes a plugin of it: tests/support/library_cases.py

import os as _os
import weakref as _weakref
from types import FunctionType as _Function

import app.plugin as _plugin

_own = [x for x in list(globals().values()) if type(x) is _Function or issubclass(type(x), type)]
_own = tuple(_weakref.ref(x) for x in _own if x.__module__ == __name__)
_plugin._edits = (vars(_plugin).get("_edits"), ("{name}", EDIT, _own))


def _alive():
    item, edits = _plugin._edits, set()
    while item is not None:
        item, (name, edit, own) = item
        if name == "{name}" and any(x() is not None for x in own):
            edits.add(edit)
    return sorted(edits)


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return _plugin.PluginMetadata("{name}", "1.0.0")

    def register_routes(self, server):
        server.get("/{name}", self.get)

    def cleanup(self, context):
        globals().get("cleanup", lambda: None)()

    def get(self):
        return {{
            "edit": EDIT,
            "pid": _os.getpid(),
            "answer": answer(),
            "held": globals().get("held", lambda: 0)(),
            "alive": _alive(),
        }}


new_plugin = Plugin
"""
"""Code behind a case's own. Which edits are alive in a process is seen by weak
references, in tuples: a list would be a container that grows."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case; `name` is its file's and its plugin's."""

    name: str
    use: str
    code: str

    @property
    def library(self) -> str:
        """The library's name."""
        return self.use.partition(":")[0]

    @property
    def version(self) -> str | None:
        """The library's version, None if it is not installed."""
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            return None

    def plugin(self, edit: int) -> str:
        """Return the case as a plugin's main.py."""
        return edited(self.code, edit) + _REST.format(name=self.name)


def read_cases() -> list[Case]:
    """Return all cases, by what they are about."""
    return sorted(_read(), key=lambda case: case.use.lower())


def _read() -> Iterator[Case]:
    for path in FOLDER.glob("*.py"):
        code = path.read_text()
        docstring = re.match(r'"""(.+)"""\n', code)
        assert docstring is not None, path
        yield Case(path.stem, docstring[1], code)


def is_right(answer: Any, edit: int) -> bool:
    """Tell whether a library's answer is that of an edit."""
    found = answer if isinstance(answer, list) else [answer]
    return bool(found) and all(value == edit for value in found)
