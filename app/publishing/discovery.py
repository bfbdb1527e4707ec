"""Folders and manifests become `PluginSource`s, read once into memory.

What is hashed, compiled and archived later are these bytes, whatever happens to the files.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from app.errors import DiscoveryError, TooLargeError
from app.files import open_regular
from app.publishing.ignore import DEFAULT, MANIFEST_NAME, Rules, is_environment, is_part
from app.publishing.manifest import parse_manifest
from app.publishing.plain_yaml import MAX_BYTES as MAX_MANIFEST_BYTES
from app.publishing.requirements import FILE_NAME as REQUIREMENTS_NAME
from app.publishing.requirements import check_requirements
from app.records import Manifest, PluginSource, is_plugin_name

ENTRY_FILES = ("main.py", "plugin.py")
MAX_FILES = 2_000
MAX_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 10 * MAX_FILES
"""How many names of all kinds are looked at; what is no part of a plugin costs time, too."""

MAX_MODULE_MB = 4


def list_folders(root: Path) -> list[str]:
    """Return the names of all folders in the plugins' root that may be plugins, sorted.

    Raises:
        OSError: the root is gone or unreadable.
    """
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_part(entry.name) and _is_dir(entry) and may_be_plugin(entry.path)
        )


def may_be_plugin(folder: str) -> bool:
    """Tell whether a folder of the plugins' root may be a plugin, and nothing left beside them."""
    name = os.path.basename(folder)  # noqa: PTH119 - for each folder, each second
    # A plugin may be called as what is left out of one: tests, venv.
    beside = not is_plugin_name(name) or name == "node_modules"
    return not (beside and DEFAULT.leave_out(name, folder=True)) and not is_environment(folder)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


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
        TooLargeError: it holds too much; little of it was read.
    """
    if not is_plugin_name(name):
        raise DiscoveryError(
            name,
            f"the folder's name is {name!r}, expected 1 to 63 of a-z, 0-9 and _, a letter first",
        )
    if not inside(root, folder):
        raise DiscoveryError(name, f"{folder} leads out of {root}; expected a folder inside of it")
    read = _read_manifest(root, folder, name)
    rules = Rules(read.ignore)
    files, executable = _read_files(root, folder, name, rules)
    for path, raw in files.items():
        if path.endswith(".py") and len(raw) > max_module_mb * 1024 * 1024:
            raise DiscoveryError(
                name,
                f"{path} has {len(raw):,} bytes, expected {max_module_mb * 1024 * 1024:,} at most: "
                "keep its data in a file that the plugin reads, or set BENANA_MAX_SOURCE_MB",
                file=path,
            )
    entry_file = next((file for file in ENTRY_FILES if file in files), None)
    if entry_file is None and MANIFEST_NAME not in files:
        held = ", ".join(sorted(files)[:5]) or "no file"
        raise DiscoveryError(name, f"the folder holds {held}; expected main.py or plugin.py")
    default = (entry_file or ENTRY_FILES[0]).removesuffix(".py") + ":new_plugin"
    manifest = replace(read, entry=read.entry or default)
    module = manifest.entry.partition(":")[0].replace(".", "/")
    if f"{module}.py" not in files and f"{module}/__init__.py" not in files:
        where = "which is not in the folder"
        if (folder / f"{module}.py").is_file() and rules.leave_out_below(f"{module}.py"):
            where = "which the plugin's patterns leave out; say so in ignore: if it is to be there"
        raise DiscoveryError(name, f"the entry {manifest.entry} needs {module}.py, {where}")
    check_requirements(name, folder, files.get(REQUIREMENTS_NAME, b""))
    return PluginSource(name, folder, files, manifest, digest_of(files), executable)


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the identity of a source: BLAKE2b over its paths and bytes, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        encoded = path.encode()
        state.update(b"%d:%b%d:" % (len(encoded), encoded, len(files[path])))
        state.update(files[path])
    return state.hexdigest()


def _read_manifest(root: Path, folder: Path, name: str) -> Manifest:
    """Read a folder's manifest, which says what else is read; its entry is empty if it has none."""
    place = folder / MANIFEST_NAME
    raw = b""
    # Where it leads out, the walk refuses it, as all that it cannot read.
    if not os.path.islink(place) or inside(root, place):  # noqa: PTH114 - that raises nothing
        with suppress(OSError):
            raw = read_file(str(place), MAX_MANIFEST_BYTES)
    return parse_manifest(name, raw, "")


def _read_files(
    root: Path, folder: Path, name: str, rules: Rules
) -> tuple[dict[str, bytes], frozenset[str]]:
    """Read a folder, once it is known that it is small enough; and tell which are programs."""
    files: dict[str, bytes] = {}
    executable: list[str] = []
    left = MAX_BYTES
    for path, place, mode in list(_list_files(root, folder, name, rules)):
        try:
            files[path] = read_file(place, left)
        except FileNotFoundError:
            continue  # gone since it was listed; the event of its going is on the way
        except OSError as error:
            raise DiscoveryError(
                name, f"{path} cannot be read: {error.strerror}", file=path, outside=True
            ) from None
        if mode & 0o111:
            executable.append(path)
        left -= len(files[path])
        if left < 0:
            raise _too_large(name)
    return files, frozenset(executable)


def _list_files(
    root: Path, folder: Path, name: str, rules: Rules
) -> Iterator[tuple[str, str, int]]:
    """List the files that are part of a plugin: path within the folder, where it is, its mode."""
    count = size = looked_at = 0
    pending = [(str(folder), "")]
    while pending:
        current, prefix = pending.pop()
        parts: list[os.DirEntry[str]] = []
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    looked_at += 1
                    if is_part(entry.name) and not _is_left_out(rules, prefix, entry):
                        parts.append(entry)
                    if looked_at > MAX_ENTRIES or count + len(parts) > 2 * MAX_FILES:
                        raise _too_large(name)
        except OSError as error:
            raise DiscoveryError(
                name, f"{current} cannot be read: {error.strerror}", outside=True
            ) from None
        for entry in sorted(parts, key=lambda entry: entry.name):
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
                pending.append((entry.path, f"{path}/"))
                continue
            try:
                status = entry.stat()
            except OSError:
                continue  # a broken link, or gone since
            if not stat.S_ISREG(status.st_mode):
                if path.endswith(".py") or path in {MANIFEST_NAME, REQUIREMENTS_NAME}:
                    raise DiscoveryError(
                        name, f"{path} is {_kind(status.st_mode)}, expected a file", file=path
                    )
                continue
            count += 1
            size += status.st_size
            if count > MAX_FILES or size > MAX_BYTES:
                raise _too_large(name)
            yield path, entry.path, status.st_mode


def _is_left_out(rules: Rules, prefix: str, entry: os.DirEntry[str]) -> bool:
    folder = _is_dir(entry)
    return rules.leave_out(prefix + entry.name, folder=folder) or (
        folder and is_environment(entry.path)
    )


def list_left_out(folder: Path, rules: Rules) -> list[tuple[str, str]]:
    """Return what a plugin's folder leaves out: each path, and the pattern that does it.

    Of a folder that is left out, nothing below it is named.
    """
    left_out: list[tuple[str, str]] = []
    pending = [(str(folder), "")]
    left = MAX_ENTRIES
    while pending and left > 0:
        current, prefix = pending.pop()
        with suppress(OSError), os.scandir(current) as entries:
            for entry in entries:
                left -= 1
                path, is_folder = prefix + entry.name, _is_dir(entry)
                if not _is_left_out(rules, prefix, entry):
                    if is_folder and not entry.is_symlink():
                        pending.append((entry.path, f"{path}/"))
                    continue
                shown = f"{path}/" if is_folder else path
                left_out.append((shown, rules.pattern_for(path, folder=is_folder)))
    return sorted(left_out)


_rules: dict[str, tuple[tuple[int, ...], Rules]] = {}
"""The rules of folders whose manifest names patterns, and what that file was when it was read."""


def rules_of(folder: Path, *, fresh: bool = True) -> Rules:
    """Return what a plugin's folder leaves out; by default where its manifest cannot be read.

    Args:
        folder: the plugin's folder.
        fresh: whether to look if the manifest is another one than last time.
    """
    key = str(folder)
    known = _rules.get(key)
    if not fresh:
        return DEFAULT if known is None else known[1]
    place = f"{key}/{MANIFEST_NAME}"
    try:
        status = os.stat(place)  # noqa: PTH116 - for each stamp
    except OSError:
        _rules.pop(key, None)
        return DEFAULT
    was = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    if known is None or known[0] != was:
        known = _rules[key] = was, _read_rules(folder.name, place)
    return known[1]


def _read_rules(name: str, place: str) -> Rules:
    with suppress(OSError, DiscoveryError):  # who publishes says what is wrong with it
        raw = read_file(place, MAX_MANIFEST_BYTES)
        if b"ignore" in raw:
            return Rules(parse_manifest(name, raw, "").ignore)
    return DEFAULT


def read_file(place: str, limit: int) -> bytes:
    """Return a regular file's bytes, `limit` and one of them at most; OSError if it is none."""
    handle, _ = open_regular(place)
    with os.fdopen(handle, "rb") as file:
        return file.read(limit + 1)


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _too_large(name: str) -> TooLargeError:
    return TooLargeError(
        name,
        f"the folder holds more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes; "
        "move data out of it, as into the plugin's data folder",
    )
