"""An archive's files as a read-only folder: written, looked at, put in its place, removed."""

import errno
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

from app.package.archive import Archive

MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""What a source may hold is far less; an archive of another make may be a bomb."""

NEW, OLD = ".new-", ".old-"
"""How folders are called before they have their name, and after."""


class UnfitError(Exception):
    """An archive is none that can be unpacked on every host alike; its text says why."""


def unpack_fault(content: Archive) -> str | None:
    """Return why an archive cannot be unpacked on every host alike, None if it can."""
    if content.size > MAX_UNPACKED_BYTES:
        return f"they have {content.size:,} bytes, expected {MAX_UNPACKED_BYTES:,} at most"
    seen: dict[str, str] = {}
    for path in content.files():
        while path:
            known = seen.setdefault(path.casefold(), path)
            if known != path:
                return f"{min(known, path)} and {max(known, path)} differ only in case"
            path = path.rpartition("/")[0]
    return None


def write_files(content: Archive, folder: Path, like: Path | None = None) -> None:
    """Write an archive's files into an empty folder, and make all of it read-only.

    Args:
        content: the archive.
        folder: the folder.
        like: the folder of another version, which nobody removes meanwhile: what is the same in
            both is one file with two names (a new one costs the file system five times as much).
    """
    root = f"{folder}/"
    made = {""}
    for path in content.files():
        parent = path.rpartition("/")[0]
        if parent not in made:
            os.makedirs(root + parent, exist_ok=True)  # noqa: PTH103 - for each folder
            while parent not in made:
                made.add(parent)
                parent = parent.rpartition("/")[0]
        mode = _mode_of(path, content)
        if like is not None and _link(f"{like}/{path}", root + path, content.read(path), mode):
            continue
        handle = os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            rest = memoryview(content.read(path))
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fchmod(handle, mode)  # whatever the umask is
        finally:
            os.close(handle)
    for inner in made:
        os.chmod(root + inner, 0o555)  # noqa: PTH101, S103 - for each folder, for all to read


def _link(old: str, new: str, raw: bytes, mode: int) -> bool:
    """Give a file another name if it is this very one; False if it is not, or cannot have one."""
    try:
        handle = os.open(old, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(handle)
        same = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == mode
        if not same or status.st_size != len(raw) or os.read(handle, len(raw) + 1) != raw:
            return False
        os.link(old, new, follow_symlinks=False)
    except OSError:  # it has too many, or belongs to another user: it is written
        return False
    finally:
        os.close(handle)
    return True


def newest_folder(parent: Path) -> Path | None:
    """Return the folder of a plugin's newest version, None if there is none."""
    newest, found = 0.0, None
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith((NEW, OLD)) and entry.stat().st_ctime > newest:
                newest, found = entry.stat().st_ctime, parent / entry.name
    return found


def _mode_of(path: str, content: Archive) -> int:
    return 0o555 if content.is_executable(path) else 0o444


def is_recent(folder: Path) -> bool:
    """Tell whether a folder was put in its place since this machine started.

    It was whole then, and no power failure has cut what was not on the disk yet.
    """
    try:
        return os.lstat(folder).st_ctime > time.time() - time.monotonic()
    except FileNotFoundError:
        return False


def is_whole(folder: Path, content: Archive) -> bool:
    """Tell whether a folder has all files in their sizes: a power failure may have cut them.

    Which of them can be run as programs is set anew: it may be all that a new archive changes.
    """
    prefix = f"{folder}/"
    try:
        for path in content.files():
            found = os.lstat(prefix + path)
            if not stat.S_ISREG(found.st_mode) or found.st_size != content.size_of(path):
                return False
            if bool(found.st_mode & 0o111) != content.is_executable(path):
                os.chmod(prefix + path, _mode_of(path, content))  # noqa: PTH101 - for each file
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def put_in_place(new: Path, folder: Path) -> bool:
    """Give a new folder its name; False if that is in use."""
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            return False
        raise
    return True


def set_aside(path: Path) -> Path:
    """Take a folder's name away, and return the one that it has now."""
    aside = unique_path(path.parent, OLD)
    path.rename(aside)
    return aside


def unique_path(folder: Path, prefix: str) -> Path:
    """Return a path that nobody else has: not even another container on the same disk."""
    return folder / f"{prefix}{os.getpid()}-{os.urandom(8).hex()}"


def remove_folder(path: Path) -> None:
    """Remove a read-only folder, also as an unprivileged user."""
    path.chmod(0o700)
    for folder, inner, _ in os.walk(path):
        for name in inner:
            os.chmod(os.path.join(folder, name), 0o700)  # noqa: PTH101, PTH118
    shutil.rmtree(path)
