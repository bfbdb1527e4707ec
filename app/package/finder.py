"""Finds the modules of all generations: one finder per process.

It is first on `sys.meta_path`, and goes before the path finder for the folders of generations: what
lies in a folder is found as its archive has it, and nothing that somebody put there.
"""

import contextlib
import importlib.abc
import importlib.machinery
import inspect
import itertools
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

from app.libraries import PACKAGES, calling_generation
from app.package.archive import Archive
from app.package.former_modules import FormerLoader

_GENERATION = re.compile(r"g[0-9]+(_[0-9]+)?")
"""The last part of the name of a generation's package; a second one of a number gets `_2`."""


class Importer(Protocol):
    """Imports one generation; see `GenerationImporter`."""

    content: Archive
    root: str
    imported: bool

    def find(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of this generation."""


@dataclass(slots=True)
class _Place:
    """A root that modules' file names begin with: who uses it, and what Python remembers of it."""

    content: Archive
    importers: int = 0
    cached: set[str] = field(default_factory=set)
    """Keys of `sys.path_importer_cache`."""


class Finder(importlib.abc.MetaPathFinder):
    """Knows the importers of all generations by their packages' names.

    `claim` a name for an importer, `release` it once the generation is to be found no more.
    """

    def __init__(self) -> None:
        self._importers: dict[str, Importer] = {}
        self._of_plugin: dict[str, list[str]] = {}
        """The names of each plugin's generations, in the order in which they were claimed."""
        self._former: dict[str, set[str]] = {}
        """The modules that stand for those of generations that are gone, by their generation."""
        self._places: dict[str, _Place] = {}
        self._roots: list[str] = []
        """Where the folders of all plugins are: the `__path__` of the package of packages."""
        self._alive: weakref.WeakSet[Importer] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.find_elsewhere: Callable[[str], object] = lambda _name: None
        """Is asked for a generation that is not known, and may claim it; for spawned processes."""

    def claim(self, name: str, importer: Importer) -> str:
        """Register an importer and return its name: the next free one if the name is in use."""
        with self._lock:
            for number in itertools.count(1):
                free = name if number == 1 else f"{name}_{number}"
                if free not in self._importers:
                    self._importers[free] = importer
                    self._of_plugin.setdefault(importer.content.plugin, []).append(free)
                    self._alive.add(importer)
                    break
        self._drop_former(free)
        self.install()
        return free

    def install(self) -> None:
        """Go first on `sys.meta_path`, if it is not there."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
            sys.path_hooks.insert(0, self._path_hook)

    def settle(self, importer: Importer, plugins: str | None) -> None:
        """Note where an importer's files are, once that is known.

        Args:
            importer: the importer.
            plugins: the folder of the plugins' folders; None if its files are in memory.
        """
        with self._lock:
            if plugins is not None and plugins not in self._roots:
                self._roots.append(plugins)
            place = self._places.setdefault(importer.root, _Place(importer.content))
            place.importers += 1

    def release(self, name: str) -> bool:
        """Forget an importer, and tell whether no other one has its files' root."""
        with self._lock:
            importer = self._importers.pop(name, None)
            if importer is not None:
                self._leave(importer.content.plugin, name)
            place = self._places.get(importer.root) if importer is not None else None
            if importer is None or place is None:
                return False
            place.importers -= 1
            if place.importers:
                return False
            del self._places[importer.root]
        for key in place.cached:
            sys.path_importer_cache.pop(key, None)
        return True

    def _leave(self, plugin: str, name: str) -> None:
        names = self._of_plugin[plugin]
        names.remove(name)
        if not names:
            del self._of_plugin[plugin]
            for former in [f for f in self._former if f.split(".")[1] == plugin]:
                self._drop_former(former)

    def _drop_former(self, generation: str) -> None:
        """Take away what stands for a generation that was gone."""
        if modules := self._former.pop(generation, None):
            for module in modules:
                sys.modules.pop(module, None)
            forget_attribute(generation)

    def count_alive(self) -> int:
        """Return how many generations are in this process's memory, served or not."""
        with self._lock:
            return len(self._alive)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a plugin's module, None for all others."""
        if not fullname.startswith(PACKAGES):
            return None
        parts = fullname.split(".")
        if parts[0] != PACKAGES:
            return None
        if len(parts) < 3:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = self._roots
            if len(parts) == 2:
                spec.submodule_search_locations = [f"{root}/{parts[1]}" for root in self._roots]
            return spec
        name = ".".join(parts[:3])
        importer = self._importers.get(name)
        if importer is None:
            self.find_elsewhere(name)
            importer = self._importers.get(name)
        if importer is None:
            return self._find_former(fullname, parts)
        return importer.find(fullname)

    def _find_former(
        self, fullname: str, parts: list[str]
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of what stands for a module of a generation that is gone."""
        plugin, generation, module = parts[1], ".".join(parts[:3]), ".".join(parts[3:])
        present = self._present(plugin)
        # Code of a generation that is gone finds nothing more; it would go on in another version.
        if present is None or calling_generation() == generation:
            return None
        if not _GENERATION.fullmatch(parts[2]):
            return None
        if self._importers[present].content.module_path(module) is None:
            return None

        def find_present() -> str:
            name = self._present(plugin)
            if name is None:
                raise ImportError(f"{fullname} is gone, and so is {plugin}", name=fullname)
            return f"{name}.{module}" if module else name

        loader = FormerLoader(find_present)
        spec = importlib.machinery.ModuleSpec(fullname, loader, is_package=True)
        with self._lock:
            self._former.setdefault(generation, set()).add(fullname)
        return spec

    def _present(self, plugin: str) -> str | None:
        """Return the generation that is the present one for who asks: his own, or the newest."""
        names = tuple(self._of_plugin.get(plugin, ()))
        caller = calling_generation()
        if caller in names:
            return caller
        # One that is still being imported is the present one for its own code alone.
        imported = [name for name in names if self._is_imported(name)]
        return next(reversed(imported), None)

    def _is_imported(self, name: str) -> bool:
        importer = self._importers.get(name)
        return importer is not None and importer.imported

    def _path_hook(self, path: str) -> "_PathEntry":
        """Return the finder of a folder of a generation, as an entry of `__path__`.

        In the folders of generations that are gone, and above them, it finds nothing.
        """
        root, inner = path, ""
        while root:
            place = self._places.get(f"{root}/")
            if place is not None:
                with self._lock:
                    place.cached.add(path)
                return _PathEntry(place.content.files(), inner)
            if root in self._roots:
                return _PathEntry((), "")
            root, _, last = root.rpartition("/")
            inner = f"{last}/{inner}"
        raise ImportError(f"{path} is in no generation's folder", path=path)


class _PathEntry(importlib.abc.PathEntryFinder):
    """Lists the modules of a folder for `pkgutil`; imports are the `Finder`'s own."""

    def __init__(self, files: Sequence[str], folder: str) -> None:
        self._files = files
        self._folder = folder

    def find_spec(
        self, fullname: str, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing: what the `Finder` does not find is not there."""
        return None

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Return the modules' names, and whether they are packages."""
        found: dict[str, bool] = {}
        for path in self._files:
            if not path.startswith(self._folder):
                continue
            first, _, rest = path[len(self._folder) :].partition("/")
            if rest == "__init__.py":
                found[first] = True
            elif not rest and (module := inspect.getmodulename(first)) not in {None, "__init__"}:
                found.setdefault(str(module), False)
        return ((prefix + name, package) for name, package in sorted(found.items()))


finder = Finder()


def forget_attribute(name: str) -> None:
    """Take a package out of its parent's attributes."""
    parent, _, last = name.rpartition(".")
    with contextlib.suppress(AttributeError):
        delattr(sys.modules.get(parent), last)


def generations_alive() -> int:
    """Return how many generations are in this process's memory, served or not."""
    return finder.count_alive()
