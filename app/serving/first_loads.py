"""One process of a host loads a changed version before the others do.

A version that ends its process while it is loaded, which its trial did not see, would end all of
them at the same moment. So whoever is first loads, and the others look how that went.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.records import ServedRow

WAIT_SECONDS = 0.1
"""How long the others wait at most: loads that take long are not to take twice as long."""

NOTE_SECONDS = 0.5
"""How long it may take until it is noted that the first one has ended its process."""

LOOK_SECONDS = 0.001

_BEGUN, _DONE = b" begun", b" done"


class FirstLoads:
    """Small files that who loads keeps locked, one for each plugin; the kernel frees the locks."""

    def __init__(self, artifacts_dir: Path) -> None:
        self._folder = artifacts_dir / ".first"

    @contextmanager
    def turn(
        self, row: ServedRow, changed: bool, is_noted: Callable[[ServedRow], bool]
    ) -> Iterator[None]:
        """Load within a `with` block: as the first one, or once that one has loaded.

        Args:
            row: what is loaded.
            changed: whether something of its plugin was loaded before; else nobody is waited for.
            is_noted: tells whether it is noted that a row's load has ended a process; who finds
                that this has happened waits for that.
        """
        if not changed:
            yield
            return
        try:
            self._folder.mkdir(exist_ok=True)
            file = os.open(self._folder / row.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a folder that cannot be written: they load together
            yield
            return
        try:
            key = f"{row.id} {row.generation} {row.binary_path}".encode()
            if self._is_first(file, key, lambda: is_noted(row)):
                _write(file, key + _BEGUN)
                try:
                    yield
                finally:  # also where it raises: that ended no process
                    _write(file, key + _DONE)
            else:
                yield
        finally:
            os.close(file)

    def _is_first(self, file: int, key: bytes, has_crashed: Callable[[], bool]) -> bool:
        """Become the first to load, or wait until that one has; return whether it is this one."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not _says(file, key + _DONE):
            if _lock(file):
                deadline = time.monotonic() + NOTE_SECONDS
                began = _says(file, key + _BEGUN)  # in a process that has ended
                while began and not has_crashed() and time.monotonic() < deadline:
                    time.sleep(LOOK_SECONDS)
                return not _says(file, key + _DONE)
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return False


def _lock(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # children that are forked do not have it
    except OSError:
        return False
    return True


def _says(file: int, text: bytes) -> bool:
    return os.pread(file, len(text) + 1, 0) == text


def _write(file: int, text: bytes) -> None:
    with suppress(OSError):  # a full disk: they load together
        os.ftruncate(file, len(text))
        os.pwrite(file, text, 0)
