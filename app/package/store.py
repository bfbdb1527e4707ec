"""The artifacts folder: immutable archives, each under the digest of its source."""

import errno
import os
from pathlib import Path

from app.errors import ArtifactError
from app.files import open_regular, read_whole, write_whole
from app.records import Artifact


def store_artifact(artifact: Artifact, folder: Path) -> Path:
    """Write an archive into the artifacts folder, whole or not at all.

    Returns:
        The archive's absolute path.

    Raises:
        ArtifactError: the folder cannot be written to; archives in it stay as they are.
    """
    try:
        return write_archive(artifact, folder)
    except OSError as error:
        path = folder / artifact.file_name
        advice = "free space, make the folder writable or set BENANA_ARTIFACTS_DIR"
        if path.is_dir():
            advice = "a folder stands there, in the place of the archive: remove it"
        raise ArtifactError(
            artifact.plugin,
            f"{path} cannot be written: {error.strerror}; {advice}",
            outside=True,
        ) from None


def write_archive(artifact: Artifact, folder: Path) -> Path:
    """Do the same as `store_artifact`, but raise OSError if the folder cannot be written to."""
    target = folder / artifact.file_name
    if not _holds(target, artifact):
        write_whole(target, artifact.archive, shared=True)
    return target


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
