"""Half of a host's processes load a changed version before the others do.

A version that ends its process while it is loaded, which its trial did not see, would end all of
them at the same moment. So whoever is first loads, and the others look how that went. Not one
alone: a processor that waits for another one's load makes each edit slower.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.files import open_private
from app.records import ServedRow

WAIT_SECONDS = 0.1
"""How long the others wait at most: loads that take long are not to take twice as long."""

NOTE_SECONDS = 0.5
"""How long it may take until it is noted that the first one has ended its process."""

LOOK_SECONDS = 0.001

_BEGUN, _DONE = b" begun\n", b" done\n"
"""What stands behind the version, and ends it: what an earlier one left behind that is no part."""


class FirstLoads:
    """Small files that who loads first keeps locked; the kernel frees the locks.

    The processes are dealt out by their numbers: each group has a file for each plugin.
    """

    def __init__(self, artifacts_dir: Path, groups: int = 1) -> None:
        """Make it.

        Args:
            artifacts_dir: this host's archives.
            groups: how many processes may be the first ones at the same time.
        """
        self._folder = artifacts_dir / ".first"
        self._groups = groups

    @contextmanager
    def turn(
        self, row: ServedRow, changed: bool, is_noted: Callable[[ServedRow], bool]
    ) -> Iterator[Callable[[], None]]:
        """Load within a `with` block: as the first one, or once that one has loaded.

        What it gives is called when the load is over, if that is before the block's end.

        Args:
            row: what is loaded.
            changed: whether something of its plugin was loaded before; else nobody is waited for.
            is_noted: tells whether it is noted that a row's load has ended a process; who finds
                that this has happened waits for that.
        """
        if not changed:
            yield _nothing
            return
        try:
            path = self._folder / f"{row.name}.{os.getpid() % self._groups}"
            file = open_private(path, os.O_RDWR)
        except OSError:  # a folder that cannot be written: they load together
            yield _nothing
            return
        try:
            key = f"{row.id} {row.generation} {row.binary_path}".encode()
            if self._is_first(file, key, lambda: is_noted(row)):
                _write(file, key + _BEGUN)
                ended = False

                def end() -> None:
                    nonlocal ended
                    if not ended:
                        ended = True
                        _write(file, key + _DONE)

                try:
                    yield end
                finally:  # also where it raises: that ended no process
                    end()
            else:
                yield _nothing
        finally:
            os.close(file)

    def _is_first(self, file: int, key: bytes, has_crashed: Callable[[], bool]) -> bool:
        """Become the first to load, or wait until that one has; return whether it is this one."""
        deadline = time.monotonic() + WAIT_SECONDS
        while _said(file, key) != _DONE:
            if _lock(file):
                deadline = time.monotonic() + NOTE_SECONDS
                said = _said(file, key)  # anew: the one that had the lock may have said more
                # Whoever began has ended its process: whether by this load is noted soon.
                while said == _BEGUN and not has_crashed() and time.monotonic() < deadline:
                    time.sleep(LOOK_SECONDS)
                return said != _DONE
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return False


def _nothing() -> None:
    """Nobody waits."""


def _lock(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # children that are forked do not have it
    except OSError:
        return False
    return True


def _said(file: int, key: bytes) -> bytes:
    """Return what is said of a version: `_BEGUN`, `_DONE`, or nothing where it is another one."""
    text = os.pread(file, len(key) + len(_BEGUN), 0)
    return next((said for said in (_BEGUN, _DONE) if text.startswith(key + said)), b"")


def _write(file: int, text: bytes) -> None:
    with suppress(OSError):  # a full disk: they load together
        os.pwrite(file, text, 0)
