"""Which folders the processes of a host use: a journal for each process, locked while it lives.

A descriptor for each folder would be the simplest lock, but a server with ten thousand plugins has
not so many. So a process holds one lock, on its journal, and writes there which folders it uses;
whoever finds a journal unlocked knows that its process is gone. A child that was forked holds the
lock with its parent.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.files import open_private

VARIABLE = "BENANA_USE_JOURNAL"
"""The environment variable by which a process that a plugin starts finds its parent's journal."""

SPARE_LINES = 100
"""How many lines more than twice those that count a journal may have before it is written anew."""

_DOOR = ".lock"
_JOURNALS = ".journals"


@dataclass(frozen=True, slots=True)
class Use:
    """One generation's use of a version.

    `name` is its package, `archive` the file with its archive and `sha256` that one's hash.
    """

    name: str
    plugin: str = ""
    digest: str = ""
    sha256: str = ""
    archive: str = ""


class UseJournal:
    """This process's journal; make it, and every change of it, within `using(root)`."""

    def __init__(self, root: Path) -> None:
        """Begin an empty journal; OSError if it cannot be written.

        Args:
            root: the folder of the unpacked versions.
        """
        self._folder = root / _JOURNALS
        self._uses: dict[str, Use] = {}
        self._lines = 0
        self._handle, self.path = self._begin()
        self.pid = os.getpid()

    def add(self, use: Use) -> None:
        """Note that a version is used from now on; OSError if that cannot be written."""
        self._write(use)
        self._uses[use.name] = use

    def remove(self, name: str) -> None:
        """Note that a generation does not use its version any more."""
        use = self._uses.pop(name, None)
        if use is None:
            return
        if self._lines < 2 * len(self._uses) + SPARE_LINES:
            self._write(Use(name))
        else:
            self._rewrite()

    def close(self) -> None:
        """Use nothing any more."""
        os.close(self._handle)
        self.path.unlink(missing_ok=True)

    def _begin(self) -> tuple[int, Path]:
        path = self._folder / f"{os.getpid()}-{os.urandom(8).hex()}"
        handle = open_private(path, os.O_WRONLY | os.O_EXCL | os.O_APPEND)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle, path

    def _write(self, *uses: Use) -> None:
        lines = b"".join(_line(use) for use in uses)
        written = os.write(self._handle, lines)
        if written < len(lines):  # others read it: half a line must not be there
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._lines += len(uses)

    def _rewrite(self) -> None:
        """Put a journal with what is still used in the place of the old one."""
        old = self._handle
        self._handle, name = self._begin()
        self._lines = 0
        self._write(*self._uses.values())
        name.replace(self.path)
        os.close(old)


def _line(use: Use) -> bytes:
    fields = [use.name, use.plugin, use.digest, use.sha256, use.archive]
    return json.dumps(fields).encode() + b"\n"


@contextlib.contextmanager
def using(root: Path) -> Iterator[None]:
    """Keep everybody from pruning, for as long as a folder is looked for, made and noted."""
    handle = open_private(root / _DOOR, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def pruning(root: Path) -> Iterator[bool]:
    """Keep everybody from beginning to use a folder; False if somebody is about to just now."""
    handle = open_private(root / _DOOR, os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def read_journal(path: Path) -> dict[str, Use]:
    """Return what a journal's process uses, by the generations' names; OSError if it is gone."""
    uses: dict[str, Use] = {}
    for line in path.read_bytes().splitlines():
        use = Use(*json.loads(line))
        if use.digest:
            uses[use.name] = use
        else:
            uses.pop(use.name, None)
    return uses


def used_versions(root: Path) -> set[tuple[str, str]]:
    """Return plugin and digest of all that processes use; only within `pruning(root)`.

    The journals of processes that are gone are removed.

    Raises:
        OSError: a journal cannot be read: what its process uses is not known.
    """
    used: set[tuple[str, str]] = set()
    folder = root / _JOURNALS
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if _is_alive(path):
                used.update((use.plugin, use.digest) for use in read_journal(path).values())
            else:
                path.unlink()
    return used


def _is_alive(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
