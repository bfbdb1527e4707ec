"""Folders and manifests become `PluginSource`s, read once into memory.

What is hashed, compiled and archived later are these bytes, whatever happens to the files.
"""

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from app.errors import DiscoveryError
from app.publishing.manifest import FILE_NAME as MANIFEST_NAME
from app.publishing.manifest import parse_manifest
from app.records import PluginSource, is_plugin_name

ENTRY_FILES = ("main.py", "plugin.py")
REQUIREMENTS_NAME = "requirements.txt"
MAX_FILES = 2_000
MAX_BYTES = 64 * 1024 * 1024
MAX_MODULE_MB = 4

_PASSING = re.compile(
    r"\..*"  # hidden: .git, .main.py.swp (vim), .main.py.AbC123 (rsync), ..data (Kubernetes)
    r"|__pycache__|.*\.py[co]"
    r"|.*~|.*\.(swp|swx|swo|tmp|temp|bak|orig|rej|part)"  # editors, patch, downloads
    r"|#.*#|4913|sed[A-Za-z0-9]{6}|.*___jb_(tmp|old)___",  # emacs, vim, sed -i, JetBrains
    re.DOTALL,
)
"""Names that tools leave for a moment or beside the source: they are no part of a plugin."""


def is_part(name: str) -> bool:
    """Tell whether a file or folder of this name is part of a plugin's source."""
    return _PASSING.fullmatch(name) is None


def list_folders(root: Path) -> list[str]:
    """Return the names of all folders in the plugins' root that may be plugins, sorted.

    Raises:
        OSError: the root is gone or unreadable.
    """
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if is_part(entry.name) and _is_dir(entry))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def folder_stamp(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return a cheap fingerprint of a folder: path, size, mtime and inode of each part.

    It only says whether to look again; content alone decides what is published. Empty for a
    folder that is gone.
    """
    stamps: list[tuple[str, int, int, int]] = []
    pending = [str(folder)]
    while pending and len(stamps) <= MAX_FILES:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if not is_part(entry.name):
                        continue
                    try:
                        found = entry.stat()
                    except OSError:
                        found = entry.stat(follow_symlinks=False)  # a broken link
                    stamps.append((entry.path, found.st_size, found.st_mtime_ns, found.st_ino))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue  # it changes under our feet: the next look will tell
    return tuple(sorted(stamps))


def inside(root: Path, path: Path) -> bool:
    """Tell whether a path lies within a root, after following all symlinks."""
    real_root, real_path = os.path.realpath(root), os.path.realpath(path)
    return os.path.commonpath([real_root, real_path]) == real_root


def read_source(
    root: Path, folder: Path, name: str, max_module_mb: int = MAX_MODULE_MB
) -> PluginSource:
    """Read a plugin's folder.

    Args:
        root: the plugins' root; nothing outside of it is read.
        folder: the plugin's folder.
        name: the plugin's name.
        max_module_mb: the size of the largest Python file, in MiB.

    Raises:
        DiscoveryError: the folder holds no plugin that could be compiled; the message says why.
    """
    if not is_plugin_name(name):
        raise DiscoveryError(
            name,
            f"the folder's name is {name!r}, expected 1 to 63 of a-z, 0-9 and _, a letter first",
        )
    if not inside(root, folder):
        raise DiscoveryError(name, f"{folder} leads out of {root}; expected a folder inside of it")
    files = _read_files(root, folder, name)
    for path, raw in files.items():
        if path.endswith(".py") and len(raw) > max_module_mb * 1024 * 1024:
            raise DiscoveryError(
                name,
                f"{path} has {len(raw):,} bytes, expected {max_module_mb * 1024 * 1024:,} at most: "
                "keep its data in a file that the plugin reads, or set BENANA_MAX_SOURCE_MB",
                file=path,
            )
    entry_file = next((file for file in ENTRY_FILES if file in files), None)
    if MANIFEST_NAME in files:
        default = (entry_file or ENTRY_FILES[0]).removesuffix(".py") + ":new_plugin"
        manifest = parse_manifest(name, files[MANIFEST_NAME], default)
    elif entry_file is None:
        found = ", ".join(sorted(files)[:5]) or "no file"
        raise DiscoveryError(name, f"the folder holds {found}; expected main.py or plugin.py")
    else:
        manifest = parse_manifest(name, b"", entry_file.removesuffix(".py") + ":new_plugin")
    module = manifest.entry.partition(":")[0].replace(".", "/")
    if f"{module}.py" not in files and f"{module}/__init__.py" not in files:
        raise DiscoveryError(
            name, f"the entry {manifest.entry} needs {module}.py, which is not in the folder"
        )
    _check_requirements(name, folder, files)
    return PluginSource(name, folder, files, manifest, digest_of(files))


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the identity of a source: BLAKE2b over its paths and bytes, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        encoded = path.encode()
        state.update(b"%d:%b%d:" % (len(encoded), encoded, len(files[path])))
        state.update(files[path])
    return state.hexdigest()


def _read_files(root: Path, folder: Path, name: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    pending = [(folder, "")]
    while pending:
        current, prefix = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise DiscoveryError(name, f"{current} cannot be read: {error.strerror}") from None
        for entry in entries:
            if not is_part(entry.name):
                continue
            path = prefix + entry.name
            try:
                path.encode()
            except UnicodeEncodeError:
                raise DiscoveryError(name, f"the file name {path!r} is not UTF-8") from None
            if entry.is_symlink() and not inside(root, Path(entry.path)):
                raise DiscoveryError(name, f"the symlink {path} leads out of {root}", file=path)
            if _is_dir(entry):
                if path.count("/") > 16:
                    raise DiscoveryError(name, f"{path} is nested too deep", file=path)
                pending.append((Path(entry.path), f"{path}/"))
                continue
            try:
                if not entry.is_file():
                    continue  # a socket, a pipe or a broken link
                total += entry.stat().st_size
                if total > MAX_BYTES or len(files) >= MAX_FILES:
                    raise DiscoveryError(
                        name,
                        f"the folder holds more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes; "
                        "keep data elsewhere, as in the plugin's data folder",
                    )
                files[path] = Path(entry.path).read_bytes()
            except FileNotFoundError:
                continue  # gone since it was listed; the event of its going is on the way
            except OSError as error:
                raise DiscoveryError(
                    name, f"{path} cannot be read: {error.strerror}", file=path
                ) from None
    return files


def _check_requirements(name: str, folder: Path, files: Mapping[str, bytes]) -> None:
    """Refuse a plugin whose `requirements.txt` this environment does not meet.

    Nothing is installed: what a running server may import is its operator's to decide.
    """
    text = files.get(REQUIREMENTS_NAME, b"").decode("utf-8-sig", "replace")
    text = re.sub(r"\\\r?\n", "  ", text)  # hashes stand on lines of their own, continued
    faults: list[tuple[str, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        wanted = re.sub(r"(^|\s)#.*|\s--(hash|config-settings|global-option).*", "", line).strip()
        if not wanted or wanted.startswith("-"):
            continue  # pip's own options
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            faults.append((f"{wanted!r} is no requirement", number))
            continue
        try:
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
        except ValueError as error:
            faults.append((f"{wanted!r} has a marker that cannot be evaluated ({error})", number))
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append((f"{wanted!r} is not installed", number))
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            faults.append((f"{wanted!r} is wanted, {found} is installed", number))
    if faults:
        raise DiscoveryError(
            name,
            "; ".join(message for message, _ in faults)
            + f"; run: pip install -r {folder / REQUIREMENTS_NAME}",
            file=REQUIREMENTS_NAME,
            line=faults[0][1],
        )
