"""The format of an archive: how a plugin's source and bytecode are packed, and read again.

An archive is a zip: the plugin's files as they are, beside each `x.py` its bytecode as `x.pyc`,
and a description (`META_FILE`) of what the archive was made from.
"""

import _imp
import hashlib
import importlib.util
import io
import json
import marshal
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.resources.abc import Traversable
from types import CodeType
from typing import Any, cast

from app.errors import ArtifactError
from app.package.zip_directory import open_zip
from app.records import Artifact, PluginSource

META_FILE = ".benana.json"
"""The archive's own description; no file of a plugin can have this hidden name."""

PYC_HEADER_BYTES = 16

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")
"""The flags of a pyc that is never compared with a source file (PEP 552)."""

_EPOCH = (1980, 1, 1, 0, 0, 0)

_ESCAPING = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
"""A name that leads out of its folder, or has a part that is no name."""


def source_label(plugin: str, digest: str) -> str:
    """Return the `co_filename` prefix of a plugin's modules.

    It stands for the folder that the version has on the host where it runs, and is what its files
    are called where it has none. No such path exists on disk, so a traceback shows the source that
    the generation was made from, out of its archive.
    """
    return f"{plugin}-{digest[:12]}.pyz/"


def path_within(plugin: str, digest: str, filename: str) -> str | None:
    """Return a file's path within a version, from a text that names it; None if it is elsewhere.

    For a dump of a process that is gone: in its folder or in memory, on whatever host.
    """
    label = source_label(plugin, digest)
    if filename.startswith(label):
        return filename[len(label) :]
    return filename.partition(f"/{plugin}/{digest}/")[2] or None


def compile_module(label: str, path: str, raw: bytes) -> CodeType:
    """Compile a module; `label` is its plugin's `source_label`, `path` its file."""
    return compile(raw, label + path, "exec", dont_inherit=True)


def rename_code(code: CodeType, filename: str) -> None:
    """Have code, and all in it, say another file, as Python does with a .pyc that was moved."""
    if code.co_filename != filename:
        _imp._fix_co_filename(code, filename)  # type: ignore[attr-defined]


def make_pyc(raw: bytes, code: CodeType) -> bytes:
    """Return a module's pyc file, made from its source and its code.

    Raises:
        ValueError: the code is nested too deeply to be marshalled.
    """
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(raw)
    return header + marshal.dumps(code)


def pack_archive(source: PluginSource, pycs: Mapping[str, bytes]) -> bytes:
    """Return the archive of a source.

    Args:
        source: the plugin's files and manifest.
        pycs: the pyc file of each module, by the module's path.
    """
    meta = {
        "name": source.name,
        "digest": source.digest,
        "entry": source.manifest.entry,
        "config": dict(source.manifest.config),
        "origins": source.manifest.origins,
        "hosts": source.manifest.hosts,
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "optimize": sys.flags.optimize,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        _add(packed, META_FILE, json.dumps(meta).encode())
        for path in sorted(source.files):
            _add(packed, path, source.files[path], executable=path in source.executable)
            if path in pycs:
                _add(packed, f"{path}c", pycs[path])
    return buffer.getvalue()


def _add(packed: zipfile.ZipFile, path: str, raw: bytes, *, executable: bool = False) -> None:
    info = zipfile.ZipInfo(path, _EPOCH)
    if executable:
        info.external_attr = 0o755 << 16
    packed.writestr(info, raw)


class Archive:
    """The content of one artifact, in memory: open it with `Archive.verified(artifact)`."""

    def __init__(self, artifact: Artifact) -> None:
        self._data = artifact.archive
        self._zip = open_zip(self._data)
        self._names = frozenset(self._zip.entries)
        for name in self._names:
            if _ESCAPING.search(name):
                raise ValueError(f"it names the file {name!r}, expected one within a folder")
        self._files = [n for n in self._names if n != META_FILE and not n.endswith(".pyc")]
        meta = json.loads(self.read(META_FILE))
        self.plugin = artifact.plugin
        self.digest = artifact.digest
        self.sha256 = artifact.sha256
        self.entry: str = meta["entry"]
        self.config: Mapping[str, Any] = meta["config"]
        # Archives from before these keys existed lack them; their plugins are open to all callers.
        self.origins: Sequence[str] | None = meta.get("origins")
        self.hosts: Sequence[str] | None = meta.get("hosts")
        self.label = source_label(self.plugin, self.digest)
        self._magic = bytes.fromhex(meta["magic"])
        self._optimize = meta.get("optimize")

    @classmethod
    def verified(cls, artifact: Artifact) -> "Archive":
        """Open an artifact after checking its bytes against its hash.

        Raises:
            ArtifactError: the bytes do not match the hash, or are not a plugin's archive.
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

    def artifact(self) -> Artifact:
        """Return it as it is kept."""
        sha256 = hashlib.sha256(self._data).hexdigest()
        return Artifact(self.plugin, self.digest, sha256, self._data)

    def read(self, path: str) -> bytes:
        """Return a file's bytes; KeyError if there is none."""
        return self._zip.read(path)

    def files(self) -> Sequence[str]:
        """Return the paths of the plugin's own files."""
        return self._files

    @property
    def size(self) -> int:
        """How many bytes the plugin's own files have together."""
        return sum(self._zip.entries[path].size for path in self._files)

    def size_of(self, path: str) -> int:
        """Return how many bytes a file has; KeyError if there is none."""
        return self._zip.entries[path].size

    def is_executable(self, path: str) -> bool:
        """Tell whether a file may be run as a program; KeyError if there is none."""
        return bool(self._zip.entries[path].attributes >> 16 & 0o111)

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

    def extension_path(self, module: str) -> str | None:
        """Return the file of a compiled module for this Python, None if there is none."""
        base = module.replace(".", "/")
        return next((base + end for end in EXTENSION_SUFFIXES if base + end in self._names), None)

    def code(self, path: str) -> CodeType:
        """Return a module's code: the stored bytecode if this Python wrote it, else compiled."""
        if self._has_bytecode(path):
            bytecode = self.read(f"{path}c")[PYC_HEADER_BYTES:]
            return cast(CodeType, marshal.loads(bytecode))  # noqa: S302 - the hash was verified
        return compile_module(self.label, path, self.read(path))

    def code_of(self, path: str, raw: bytes) -> CodeType | None:
        """Return a module's stored code if it was compiled from a source as Python now would.

        Args:
            path: the module's file.
            raw: the source.

        Returns:
            The code, which names the file as this archive does; None if it has to be compiled.
        """
        same = self._has_bytecode(path) and self._optimize == sys.flags.optimize
        return self.code(path) if same and self.read(path) == raw else None

    def _has_bytecode(self, path: str) -> bool:
        """Tell whether a module's bytecode is there, and was written by this Python."""
        return self._magic == importlib.util.MAGIC_NUMBER and f"{path}c" in self._names

    def root(self) -> Traversable:
        """Return the archive's root folder, for `importlib.resources`."""
        own = zipfile.ZipFile(io.BytesIO(self._data))
        own.filelist = [own.getinfo(name) for name in self._files]
        return cast(Traversable, zipfile.Path(own))
