"""Modules of generations that are gone, as what was written down by them names them.

A pickle, a cache or a queue on the disk names a class by its module: `_plugins.shop.g2.main`. After
the next edit there is no such module any more; whoever reads it then gets the class of the same
place in the present version.
"""

import importlib
import importlib.abc
import importlib.machinery
from collections.abc import Callable
from types import ModuleType
from typing import Any


class FormerModule(ModuleType):
    """Has what the same module of the present version has; it keeps no version in memory."""

    def __init__(self, name: str, find_present: Callable[[], str]) -> None:
        """Make it.

        Args:
            name: its name, of the generation that is gone.
            find_present: returns the name of the module that it stands for, at each use;
                ImportError if there is none.
        """
        super().__init__(name)
        self.__dict__["_find_present"] = find_present

    def __repr__(self) -> str:
        return f"<module {self.__name__!r} of a generation that is gone>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system and `inspect` look for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module = importlib.import_module(self.__dict__["_find_present"]())
        try:
            return getattr(module, name)
        except AttributeError:
            raise AttributeError(
                f"{self.__name__} is gone, and {module.__name__}, which stands in its place, "
                f"has no {name!r}"
            ) from None


class FormerLoader(importlib.abc.Loader):
    """Makes the module of a generation that is gone; it runs no code."""

    def __init__(self, find_present: Callable[[], str]) -> None:
        self._find_present = find_present

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the module."""
        return FormerModule(spec.name, self._find_present)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module is what it is."""
