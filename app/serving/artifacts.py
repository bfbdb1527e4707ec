"""The artifacts folder: immutable archives, each under the digest of its source."""

import errno
import os
import stat
import tempfile
from pathlib import Path

from app.errors import ArtifactError
from app.records import Artifact


def store_artifact(artifact: Artifact, folder: Path) -> Path:
    """Write an archive into the artifacts folder, whole or not at all.

    Returns:
        The archive's absolute path.

    Raises:
        ArtifactError: the folder cannot be written to; an older archive is left as it was.
    """
    try:
        return write_archive(artifact, folder)
    except OSError as error:
        raise ArtifactError(
            artifact.plugin,
            f"{folder / artifact.file_name} cannot be written: {error.strerror}; free space, make "
            "the folder writable or set BENANA_ARTIFACTS_DIR",
            outside=True,
        ) from None


def write_archive(artifact: Artifact, folder: Path) -> Path:
    """Do what `store_artifact` does; OSError if the folder cannot be written to."""
    target = folder / artifact.file_name
    if not _holds(target, artifact):
        write_whole(target, artifact.archive, shared=True)
    return target


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


def _holds(path: Path, artifact: Artifact) -> bool:
    try:
        handle, size = open_regular(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False  # a pipe or the like: the archive takes its place
        raise
    with os.fdopen(handle, "rb") as file:
        return size == len(artifact.archive) and file.read() == artifact.archive


def read_archive(folder: Path, file_name: str) -> bytes | None:
    """Return an archive's bytes, None if it is not there or cannot be read."""
    try:
        return read_whole(folder / file_name)
    except OSError:
        return None


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
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return handle, found.st_size
