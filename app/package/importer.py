"""The import of a generation: its code comes out of its archive, its files lie in its folder.

A generation is the package `_plugins.<name>.g<generation>`. Its modules stay in `sys.modules`
until it is retired, because dataclasses, pickle and `typing.get_type_hints` look them up there.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import weakref
import zipimport
from importlib.resources.abc import Traversable, TraversableResources
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from app.errors import ArtifactError
from app.inspection import is_class, is_module, module_of, namespace_of
from app.libraries import PACKAGES
from app.package.archive import Archive, rename_code
from app.package.finder import finder, forget_attribute
from app.package.version_folders import VersionFolders


class GenerationImporter(importlib.abc.InspectLoader, zipimport.zipimporter):  # type: ignore[misc]
    """Imports one generation of a plugin.

    Make it from a verified archive, then call `import_entry`; call `forget` when the generation
    is retired. Where it has a folder, each of its modules has a loader as Python's own, for the
    libraries that look at it. Where it has none, the importer is the loader of all modules, and a
    zip importer (whose zip is in memory): that is the one other kind that libraries know. Jinja's
    `PackageLoader` asks it for `archive`, `get_data` and the list of its files.
    """

    def __init__(
        self,
        content: Archive,
        generation: int | str,
        folders: VersionFolders | None = None,
    ) -> None:
        """Claim the generation's name and its folder.

        Args:
            content: its archive, verified.
            generation: its number, or its package's name where that is given already.
            folders: where its files are unpacked; None to have them in memory alone.

        Raises:
            ArtifactError: its files cannot be unpacked.
        """
        # The zip importer's own __init__ would open a file. It sets `archive` and `prefix`.
        self.content = content
        self.prefix = ""
        self.root = content.label
        self._imported: list[str] = []
        self.imported = False
        """Whether its entry is imported."""
        if isinstance(generation, int):
            generation = f"{PACKAGES}.{content.plugin}.g{generation}"
        self.name = finder.claim(generation, self)
        self.folder = None
        if folders is not None:
            try:
                self.folder = folders.take(self.name, content)
            except ArtifactError:
                finder.release(self.name)
                raise
            # Whoever still refers to it may still read its files.
            weakref.finalize(self, folders.give_back, self.name).atexit = False
        if self.folder is not None:
            self.root = f"{self.folder}/"
        finder.settle(self, str(folders.root) if folders and self.folder else None)
        self.archive = self.root.removesuffix("/")

    def import_entry(self) -> ModuleType:
        """Import the module that the manifest's entry names."""
        module = self.content.entry.partition(":")[0]
        entry = importlib.import_module(f"{self.name}.{module}")
        self.imported = True
        return entry

    def place_of(self, filename: str, line: int | None) -> tuple[str, int] | None:
        """Return the file within the plugin's folder and the line; None for code elsewhere."""
        if line is None or not filename.startswith(self.root):
            return None
        return filename[len(self.root) :], line

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        self.note(module.__name__)
        super().exec_module(module)

    def note(self, fullname: str) -> None:
        """Note that a module is imported, to forget it with the others."""
        self._imported.append(fullname)

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
        forget_attribute(self.name)
        if finder.release(self.name):
            for key in [k for k in list(linecache.cache) if k.startswith(self.root)]:
                linecache.cache.pop(key, None)

    def find(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of this generation."""
        module = fullname[len(self.name) + 1 :]
        located = self.content.module_path(module)
        if located is None:
            return self._find_extension(fullname)
        path, package = located
        origin = self.root + path if path else None
        loader = self if self.folder is None else _FolderLoader(self, fullname)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=origin, is_package=package)
        spec.has_location = origin is not None
        if package:
            folder = self.root + module.replace(".", "/")
            spec.submodule_search_locations = [folder.removesuffix("/")]
        return spec

    def _find_extension(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        path = self.content.extension_path(fullname[len(self.name) + 1 :])
        if path is None:
            return None
        if self.folder is None:
            raise ImportError(
                f"{path} is compiled code, which is loaded from a folder, and this host has none "
                f"for {self.content.plugin}: the log says why",
                name=fullname,
            )
        loader = _ExtensionLoader(self, fullname, path)
        return importlib.util.spec_from_file_location(fullname, self.root + path, loader=loader)

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
        if not path:
            return compile("", "<folder>", "exec")
        code = self.content.code(path)
        rename_code(code, self.root + path)
        return code

    def get_source(self, fullname: str) -> str:
        """Return a module's source, for tracebacks and `inspect`."""
        path = self._path(fullname)
        return importlib.util.decode_source(self.content.read(path)) if path else ""

    def get_data(self, path: str) -> bytes:
        """Return a file's bytes, for `pkgutil.get_data`."""
        try:
            return self.content.read(path.removeprefix(self.root))
        except KeyError:
            raise FileNotFoundError(f"{path} is not in the archive") from None

    def get_filename(self, fullname: str) -> str:
        """Return a module's file, as its code names it."""
        return self.root + self._path(fullname)

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


class _FolderLoader(importlib.machinery.SourceFileLoader):
    """The loader of one module whose files are unpacked; what it loads is its importer's."""

    def __init__(self, importer: GenerationImporter, fullname: str) -> None:
        # A folder without __init__.py has no file, but its resources lie beside where one would.
        path = importer.get_filename(fullname)
        if path == importer.root:
            inner = fullname[len(importer.name) :].replace(".", "/")
            path = f"{importer.archive}{inner}/__init__.py"
        super().__init__(fullname, path)
        self.importer = importer

    def exec_module(self, module: ModuleType) -> None:
        self.importer.note(module.__name__)
        super().exec_module(module)

    def is_package(self, fullname: str) -> bool:
        return self.importer.is_package(fullname)

    def get_code(self, fullname: str) -> CodeType:
        return self.importer.get_code(fullname)

    def get_source(self, fullname: str) -> str:
        return self.importer.get_source(fullname)

    def get_data(self, path: str) -> bytes:
        return self.importer.get_data(path)


class _ExtensionLoader(importlib.machinery.ExtensionFileLoader):
    """The loader of a compiled module; the file is compared with the archive before it is run."""

    def __init__(self, importer: GenerationImporter, fullname: str, path: str) -> None:
        super().__init__(fullname, importer.root + path)
        self.importer = importer
        self._inner = path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if Path(self.path).read_bytes() != self.importer.content.read(self._inner):
            raise ImportError(
                f"{self.path} is not what was published: it was changed or damaged; remove its "
                "folder and reload the plugin",
                name=spec.name,
                path=self.path,
            )
        self.importer.note(spec.name)
        return super().create_module(spec)
