"""The import from memory: a generation's modules come out of its archive.

A generation is the package `_plugins.<name>.g<generation>`. Its modules stay in `sys.modules`
until it is retired, because dataclasses, pickle and `typing.get_type_hints` look them up there.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import linecache
import sys
import threading
import weakref
import zipimport
from collections import Counter
from collections.abc import Sequence
from importlib.resources.abc import Traversable, TraversableResources
from types import CodeType, ModuleType
from typing import Any, cast

from app.inspection import is_class, is_module, module_of, namespace_of
from app.package.archive import Archive

ROOT = "_plugins"
"""The package of all plugins' packages."""


class _Folder:
    """A package's folder in an archive, as an entry of `__path__`.

    Code that joins paths to it gets paths into the archive. It is a path object and not a str, so
    that Python's path finder skips it: it would search the folder, which does not exist, and
    remember it for ever.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return repr(self._path)


class GenerationImporter(importlib.abc.InspectLoader, zipimport.zipimporter):  # type: ignore[misc]
    """Imports one generation of a plugin; the loader of all its modules.

    Make it from a verified archive, then call `import_entry`; call `forget` when the generation
    is retired. It is a zip importer (whose zip is in memory) because that is the one kind of
    loader, besides folders, that libraries know: Jinja's `PackageLoader` asks it for `archive`,
    `get_data` and the list of its files.
    """

    def __init__(self, content: Archive, generation: int) -> None:
        # The zip importer's own __init__ would open a file. It sets `archive` and `prefix`.
        self.content = content
        self.archive = content.label.removesuffix("/")
        self.prefix = ""
        self._imported: list[str] = []
        self.name = _finder.claim(f"{ROOT}.{content.plugin}.g{generation}", self)

    def import_entry(self) -> ModuleType:
        """Import the module that the manifest's entry names."""
        module = self.content.entry.partition(":")[0]
        return importlib.import_module(f"{self.name}.{module}")

    def place_of(self, filename: str, line: int | None) -> tuple[str, int] | None:
        """Return the file within the plugin's folder and the line; None for code elsewhere."""
        if line is None or not filename.startswith(self.content.label):
            return None
        return filename[len(self.content.label) :], line

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        self._imported.append(module.__name__)
        super().exec_module(module)

    def traces(self) -> "list[weakref.ref[Any]]":
        """Return weak references that stay alive as long as anything of the generation does.

        Each module's globals refer to this loader, and each function to its module's globals. A
        class without functions refers to neither, so it has a reference of its own.
        """
        classes: dict[int, type] = {}  # no set: a metaclass may say what is equal
        for name in self._imported:
            module = sys.modules.get(name)
            if module is not None and is_module(module):  # a plugin may put anything there
                for value in list(namespace_of(module).values()):
                    if is_class(value) and module_of(value) == name:
                        classes[id(value)] = value
        return [weakref.ref(item) for item in (self, *classes.values())]

    def forget(self) -> None:
        """Take the generation's modules out of `sys.modules` and of the import system."""
        for name in self._imported:
            sys.modules.pop(name, None)
        parent = sys.modules.get(self.name.rpartition(".")[0])
        with contextlib.suppress(AttributeError):
            delattr(parent, self.name.rpartition(".")[2])
        _finder.release(self.name)
        if not _finder.uses(self.content.label):
            for key in [k for k in list(linecache.cache) if k.startswith(self.content.label)]:
                linecache.cache.pop(key, None)

    def find(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of this generation."""
        located = self.content.module_path(fullname[len(self.name) + 1 :])
        if located is None:
            return None
        path, package = located
        origin = self.content.label + path if path else None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=package)
        spec.has_location = origin is not None
        if package:
            folder = self.content.label + fullname[len(self.name) + 1 :].replace(".", "/")
            spec.submodule_search_locations = cast(list[str], [_Folder(folder.removesuffix("/"))])
        return spec

    def _path(self, fullname: str) -> str:
        located = self.content.module_path(fullname[len(self.name) + 1 :])
        if located is None:
            raise ImportError(f"no module named {fullname!r}", name=fullname)
        return located[0]

    def is_package(self, fullname: str) -> bool:
        """Tell whether a module is a package."""
        located = self.content.module_path(fullname[len(self.name) + 1 :])
        return located is not None and located[1]

    def get_code(self, fullname: str) -> CodeType:
        """Return a module's code."""
        path = self._path(fullname)
        return self.content.code(path) if path else compile("", "<folder>", "exec")

    def get_source(self, fullname: str) -> str:
        """Return a module's source, for tracebacks and `inspect`."""
        path = self._path(fullname)
        return importlib.util.decode_source(self.content.read(path)) if path else ""

    def get_data(self, path: str) -> bytes:
        """Return a file's bytes, for `pkgutil.get_data`."""
        try:
            return self.content.read(path.removeprefix(self.content.label))
        except KeyError:
            raise OSError(f"{path} is not in the archive") from None

    def get_filename(self, fullname: str) -> str:
        """Return a module's file, as its code names it."""
        return self.content.label + self._path(fullname)

    @property
    def _files(self) -> dict[str, None]:
        """The files' paths, under the name of the zip importer's own directory."""
        return dict.fromkeys(self.content.files())

    def _get_files(self) -> dict[str, None]:
        """Return the files' paths, as Python 3.13 and later ask for them."""
        return self._files

    def get_resource_reader(self, fullname: str) -> "_Resources":  # type: ignore[override]
        """Return the reader behind `importlib.resources`."""
        folder = fullname[len(self.name) + 1 :].replace(".", "/")
        root = self.content.root()
        return _Resources(root.joinpath(folder) if folder else root)


class _Resources(TraversableResources):
    def __init__(self, folder: Traversable) -> None:
        self._folder = folder

    def files(self) -> Traversable:
        return self._folder


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of all generations: one per process, first on `sys.meta_path`.

    It must be first, because Python's path finder would search folders that do not exist, and
    remember them for ever.
    """

    def __init__(self) -> None:
        self._importers: dict[str, GenerationImporter] = {}
        self._labels: Counter[str] = Counter()
        """How many generations use each label in their modules' file names."""
        self._alive: weakref.WeakSet[GenerationImporter] = weakref.WeakSet()
        self._lock = threading.Lock()

    def claim(self, name: str, importer: GenerationImporter) -> str:
        """Register an importer and return its name: the next free one if the name is in use."""
        with self._lock:
            for number in itertools.count(1):
                free = name if number == 1 else f"{name}_{number}"
                if free not in self._importers:
                    self._importers[free] = importer
                    self._labels[importer.content.label] += 1
                    self._alive.add(importer)
                    break
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        return free

    def release(self, name: str) -> None:
        with self._lock:
            importer = self._importers.pop(name, None)
            if importer is not None:
                label = importer.content.label
                self._labels[label] -= 1
                if not self._labels[label]:
                    del self._labels[label]

    def count_alive(self) -> int:
        with self._lock:
            return len(self._alive)

    def uses(self, label: str) -> bool:
        with self._lock:
            return label in self._labels

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(ROOT):
            return None
        parts = fullname.split(".")
        if parts[0] != ROOT:
            return None
        if len(parts) < 3:
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        importer = self._importers.get(".".join(parts[:3]))
        return None if importer is None else importer.find(fullname)


_finder = _Finder()


def generations_alive() -> int:
    """Return how many generations are in this process's memory, served or not."""
    return _finder.count_alive()
