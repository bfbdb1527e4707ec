"""A lock that one process of a host holds, and that the kernel frees when the process ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class HostLock:
    """The lock of a file: `take` it, look now and then whether it `is_held`, `release` it.

    A lock of the process (POSIX's): children that a plugin forks do not inherit it, as they would
    `flock`'s, and so cannot keep it after their parent's end. Any close of the file in the process
    gives it up, so nobody else may open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def take(self) -> bool:
        """Take the lock if it is free; return whether this process holds it now.

        Raises:
            OSError: the file cannot be opened.
        """
        if self.is_held():
            return True
        self._drop()  # of a file that was removed: the lock of the new one counts
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._file = file
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # EACCES or EAGAIN: another process has it
            self._drop()
            return False
        if not self.is_held():  # its holder has just removed it
            self._drop()
            return False
        return True

    def is_held(self) -> bool:
        """Return whether this process holds the lock, and of the file that counts."""
        if self._file < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))  # noqa: PTH116
        except OSError:
            return False  # somebody removed it: another process can take a new one

    def release(self) -> None:
        """Give the lock back, and take the file away; one that is not held is no error."""
        if self.is_held():
            with suppress(OSError):
                self._path.unlink()
        self._drop()

    def _drop(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
