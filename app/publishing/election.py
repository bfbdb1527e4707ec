"""Which process of a host watches: the one that has the lock, which the kernel frees at its end."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from app.database.processes import make_private


@contextmanager
def elected(lock_file: Path) -> Iterator[None]:
    """Be the one process that holds a lock, for the length of a `with` block.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made or locked.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with _open(lock_file) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _open(path: Path) -> IO[str]:
    # Were it a pipe, to open it for appending would wait for a reader without end.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    # Who can open a file can lock it, and so keep every process from watching.
    descriptor = os.open(path, flags, 0o600)
    make_private(descriptor)
    return os.fdopen(descriptor, "w")
