"""Files read and written whole, whatever others do to them meanwhile."""

import errno
import os
import stat
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write a file, whole or not at all; folders that are missing are made.

    Args:
        path: the file; an older one is left as it was if the writing fails.
        data: its content.
        shared: whether other users may read it, and it is on the disk before it has its name.

    Raises:
        OSError: it cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if shared:
                file.flush()
                os.fsync(file.fileno())
        if shared:
            temporary.chmod(0o644)  # mkstemp's 0600 would hide it from others
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def open_private(path: Path, flags: int) -> int:
    """Open a file that nobody else may open, and return its descriptor; both may have to be made.

    Args:
        path: the file; its folder is made if it is missing.
        flags: how to open it, as `os.O_RDWR`.

    Raises:
        OSError: it cannot be opened, or made.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def read_whole(path: Path) -> bytes:
    """Return a regular file's bytes; OSError if it cannot be read, or is none.

    With the fewest calls of the system: each gives the GIL away, and under load a thread waits
    for it. One read is enough for the files that `write_whole` wrote; for an archive that somebody
    else cut or let grow its hash tells.
    """
    handle, size = open_regular(path)
    try:
        return os.read(handle, size)
    finally:
        os.close(handle)


def open_regular(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Open a regular file for reading and return its descriptor and its size.

    What stands there may be anything, and be another thing than a moment ago: to open a pipe that
    nobody writes to waits without end, and a device never ends.

    Raises:
        OSError: it cannot be opened; with EINVAL if it is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return handle, status.st_size


def make_private(descriptor: int) -> None:
    """Let nobody else open a file of ours, however it was made."""
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)


def place_of(error: OSError, usual: Path, called: str) -> str:
    """Return what the system could not open or read, as text for a sentence.

    Args:
        error: what was raised, which may name another file.
        usual: what was looked at.
        called: what that is called, as "the plugins' root".
    """
    named = error.filename
    place = os.fsdecode(named) if isinstance(named, str | bytes) else str(usual)
    return f"{called} {place}" if place == str(usual) else place
