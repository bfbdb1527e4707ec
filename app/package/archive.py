"""An archive as a Python package: verified, then imported from memory under a name of its own.

A generation is the package `_plugins.<name>.g<generation>`; its modules stay in `sys.modules`
until it is retired, because dataclasses, pickle and `typing.get_type_hints` look them up there.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import itertools
import json
import linecache
import marshal
import sys
import threading
import weakref
import zipfile
import zipimport
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable, TraversableResources
from types import CodeType, ModuleType
from typing import Any, cast

from app.errors import ArtifactError
from app.records import Artifact

ROOT = "_plugins"
META_FILE = ".benana.json"
"""The archive's own description; no file of a plugin can have this hidden name."""

PYC_HEADER_BYTES = 16


def source_label(plugin: str, digest: str) -> str:
    """Return the `co_filename` prefix of a plugin's modules.

    It is no path that exists, so tracebacks take the source from the archive of the generation
    that raised and not from today's file.
    """
    return f"{plugin}-{digest[:12]}.pyz/"


class Archive:
    """The verified content of one artifact, in memory."""

    def __init__(self, artifact: Artifact) -> None:
        self._data = artifact.archive
        self._zip = zipfile.ZipFile(io.BytesIO(self._data))
        self._names = frozenset(self._zip.namelist())
        meta = json.loads(self._zip.read(META_FILE))
        self.plugin = artifact.plugin
        self.digest = artifact.digest
        self.entry: str = meta["entry"]
        self.config: Mapping[str, Any] = meta["config"]
        # An archive that was made before there were these keys is open, as it was then.
        self.origins: Sequence[str] | None = meta.get("origins")
        self.hosts: Sequence[str] | None = meta.get("hosts")
        self.label = source_label(self.plugin, self.digest)
        self._magic = bytes.fromhex(meta["magic"])

    @classmethod
    def verified(cls, artifact: Artifact) -> "Archive":
        """Open an artifact whose bytes match its hash.

        Raises:
            ArtifactError: they do not, or they are no archive of this plugin.
        """
        if not artifact.is_intact():
            raise ArtifactError(
                artifact.plugin,
                f"{artifact.file_name} does not have the SHA-256 {artifact.sha256[:12]}…: it was "
                "changed or damaged; reload the plugin",
            )
        try:
            return cls(artifact)
        except (
            zipfile.BadZipFile,
            LookupError,
            ValueError,
            EOFError,
            TypeError,
            RuntimeError,
        ) as error:
            raise ArtifactError(
                artifact.plugin,
                f"{artifact.file_name} is no archive of a plugin ({error}); reload the plugin",
            ) from None

    def read(self, path: str) -> bytes:
        """Return a file's bytes; KeyError if there is none."""
        return self._zip.read(path)

    def files(self) -> list[str]:
        """Return the paths of the plugin's own files."""
        return [name for name in self._names if not name.endswith((META_FILE, ".pyc"))]

    def module_path(self, module: str) -> tuple[str, bool] | None:
        """Return a module's file and whether it is a package.

        Args:
            module: the dotted name below the plugin's package, empty for the package itself.

        Returns:
            The path within the plugin's folder, empty for a folder without `__init__.py`; or
            None if there is no such module.
        """
        base = module.replace(".", "/")
        init = f"{base}/__init__.py" if base else "__init__.py"
        if init in self._names:
            return init, True
        if base and f"{base}.py" in self._names:
            return f"{base}.py", False
        if not base or any(name.startswith(f"{base}/") for name in self._names):
            return "", True
        return None

    def code(self, path: str) -> CodeType:
        """Return a module's code: the stored bytecode if this Python wrote it, else compiled."""
        if self._magic == importlib.util.MAGIC_NUMBER and f"{path}c" in self._names:
            bytecode = self.read(f"{path}c")[PYC_HEADER_BYTES:]
            return cast(CodeType, marshal.loads(bytecode))  # noqa: S302 - the hash was verified
        return compile(self.read(path), self.label + path, "exec", dont_inherit=True)

    def root(self) -> Traversable:
        """Return the archive's root folder, for `importlib.resources`."""
        own = zipfile.ZipFile(io.BytesIO(self._data))
        own.filelist = [i for i in own.filelist if not i.filename.endswith((META_FILE, ".pyc"))]
        return cast(Traversable, zipfile.Path(own))


_NO_MODULE = ModuleType("no_module")


class _Folder:
    """A package's folder in an archive, for those who join paths to it.

    It is a path and no text, so that the path finder leaves it out: it would search, and remember
    for ever, a folder that does not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return repr(self._path)


class GenerationImporter(importlib.abc.InspectLoader, zipimport.zipimporter):  # type: ignore[misc]
    """The loader of all modules of one generation of one plugin.

    It is a zip importer, whose file is in memory, because that is what others know besides
    folders: Jinja's `PackageLoader` asks one for `archive`, `get_data` and the list of its files.
    """

    def __init__(self, content: Archive, generation: int) -> None:
        # Not the zip importer's own, which opens a file. `archive` and `prefix` are what it has.
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
        """Return the file within the plugin's folder and the line, None for others' code."""
        if line is None or not filename.startswith(self.content.label):
            return None
        return filename[len(self.content.label) :], line

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        self._imported.append(module.__name__)
        super().exec_module(module)

    def traces(self) -> "list[weakref.ref[Any]]":
        """Return references to what is alive as long as anything of the generation is.

        Each module's globals hold this loader, and each function its module's globals; a class
        without functions holds nothing but itself.
        """
        classes = {
            value
            for name in self._imported
            for value in list(vars(sys.modules.get(name, _NO_MODULE)).values())
            if isinstance(value, type) and value.__module__ == name
        }
        return [weakref.ref(item) for item in (self, *classes)]

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
        """The files' paths, where the zip importer has its directory."""
        return dict.fromkeys(self.content.files())

    def _get_files(self) -> dict[str, None]:
        """Return the same, as from Python 3.13 on."""
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
    """Finds the modules of all generations; one per process, first on `sys.meta_path`.

    First, because the path finder would search, and remember for ever, folders that do not exist.
    """

    def __init__(self) -> None:
        self._packages: dict[str, GenerationImporter] = {}
        self._labels: Counter[str] = Counter()
        """How many packages have the modules' file names begin with each label."""
        self._alive: weakref.WeakSet[GenerationImporter] = weakref.WeakSet()
        self._lock = threading.Lock()

    def claim(self, name: str, package: GenerationImporter) -> str:
        """Enter a package under its name, or under the next free one if that is still in use."""
        with self._lock:
            for number in itertools.count(1):
                free = name if number == 1 else f"{name}_{number}"
                if free not in self._packages:
                    self._packages[free] = package
                    self._labels[package.content.label] += 1
                    self._alive.add(package)
                    break
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        return free

    def release(self, name: str) -> None:
        with self._lock:
            package = self._packages.pop(name, None)
            if package is not None:
                label = package.content.label
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
        package = self._packages.get(".".join(parts[:3]))
        return None if package is None else package.find(fullname)


_finder = _Finder()


def generations_alive() -> int:
    """Return how many generations are in this process's memory, served or not."""
    return _finder.count_alive()
